import { createServer, type Socket } from 'node:net'

// A server that can do anything wrong on the wire, because it writes the bytes itself.

export interface HostileRequest {
  method: string
  path: string
  body: string
}

/** Answers one request by writing to the socket, or does not. */
export type Misbehaviour = (request: HostileRequest, socket: Socket) => void | Promise<void>

export interface HostileServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly requests: HostileRequest[]
  /** Connections that are open now. */
  readonly open: number
  /** Resolves when no connection is open. */
  idle(): Promise<void>
  /** Resolves at the next request, or at once when one has come already. */
  asked(): Promise<void>
}

export async function startHostile(answer: Misbehaviour, port = 0): Promise<HostileServer> {
  const requests: HostileRequest[] = []
  const sockets = new Set<Socket>()
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const resolve of waiting) resolve()
  }
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => {
      sockets.delete(socket)
      wake()
    })
    socket.on('error', () => undefined) // the client may hang up at any time
    let text = ''
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      const request = parseRequest(text)
      if (request === undefined) return
      text = ''
      requests.push(request)
      wake()
      void answer(request, socket)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  const address = server.address()
  const bound = typeof address === 'object' && address !== null ? address.port : port
  const until = async (reached: () => boolean) => {
    while (!reached()) {
      await new Promise<void>((resolve) => {
        waiting.add(resolve)
      })
    }
  }
  return {
    url: `http://127.0.0.1:${bound}`,
    port: bound,
    requests,
    get open() {
      return sockets.size
    },
    idle: () => until(() => sockets.size === 0),
    asked: () => until(() => requests.length > 0),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function parseRequest(text: string): HostileRequest | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const length = Number(/content-length: (\d+)/i.exec(text.slice(0, end))?.[1] ?? 0)
  const body = text.slice(end + 4)
  if (body.length < length) return undefined
  const [method = '', path = ''] = text.split(' ')
  return { method, path, body }
}

/** A whole reply; further headers one by one. */
export function reply(status: number, body: string, ...headers: readonly string[]): string {
  const lines = [`HTTP/1.1 ${status} Whatever`, `Content-Length: ${Buffer.byteLength(body)}`]
  return `${[...lines, ...headers].join('\r\n')}\r\n\r\n${body}`
}
