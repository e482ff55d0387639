import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

// A TCP load balancer as small as one can be: round robin, and a member that does not accept is
// passed over. It does not replay what a dying member had already taken, as real ones do not.

export interface Balancer extends AsyncDisposable {
  readonly url: string
  /** Connections handed to each member so far, by port. */
  readonly served: Readonly<Record<number, number>>
  /** Connections that a member has now. */
  inFlight(port: number): number
  /** Resolves as soon as this member has been handed so many connections from now. */
  handed(port: number, count: number): Promise<void>
}

/** Balances 127.0.0.1 ports behind one address. */
export async function startBalancer(ports: readonly number[]): Promise<Balancer> {
  const served: Record<number, number> = Object.fromEntries(ports.map((port) => [port, 0]))
  const open = new Set<Socket>()
  const busy = new Map<number, number>()
  const watchers = new Set<() => void>()
  let next = 0
  const server = createServer((client) => {
    track(open, client)
    const first = next++ % ports.length
    const order = [...ports.slice(first), ...ports.slice(0, first)]
    void reach(order).then((member) => {
      if (member === undefined || client.destroyed) {
        client.destroy()
        member?.socket.destroy()
        return
      }
      served[member.port] = (served[member.port] ?? 0) + 1
      track(open, member.socket)
      const { port, socket } = member
      busy.set(port, (busy.get(port) ?? 0) + 1)
      socket.once('close', () => busy.set(port, (busy.get(port) ?? 1) - 1))
      join(client, socket)
      for (const watcher of watchers) watcher()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // a TCP server that listens
  return {
    url: `http://127.0.0.1:${port}`,
    served,
    inFlight: (member) => busy.get(member) ?? 0,
    handed: (member, count) => {
      const { promise, resolve } = Promise.withResolvers<void>()
      const goal = (served[member] ?? 0) + count
      const watcher = () => {
        if ((served[member] ?? 0) >= goal) resolve()
      }
      watchers.add(watcher)
      return promise.finally(() => watchers.delete(watcher))
    },
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      for (const socket of open) socket.destroy()
      await closed
    },
  }
}

async function reach(
  ports: readonly number[],
): Promise<{ socket: Socket; port: number } | undefined> {
  for (const port of ports) {
    const socket = connect(port, '127.0.0.1')
    const accepted = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'close').then(() => false),
    ]).catch(() => false)
    if (accepted) return { socket, port }
    socket.destroy()
  }
  return undefined
}

function join(client: Socket, member: Socket): void {
  client.pipe(member)
  member.pipe(client)
  client.once('close', () => member.destroy())
  member.once('close', () => client.destroy())
}

function track(open: Set<Socket>, socket: Socket): void {
  open.add(socket)
  socket.on('error', () => socket.destroy())
  socket.once('close', () => open.delete(socket))
}
