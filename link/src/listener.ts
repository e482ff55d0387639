import type { IncomingMessage, Server } from 'node:http'
import type { Server as SecureServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

// What every small HTTP server of a node needs: to listen, to stop at once, and to read no more than
// it has room for.

export interface Listener extends AsyncDisposable {
  readonly port: number
}

/**
 * Listens on a port, 0 taking a free one; without a host on all interfaces. Disposing ends every
 * connection without a word and bears being done again. Rejects with the system's error when the port is taken.
 */
export async function openListener(
  server: Server | SecureServer,
  { port, host }: { port: number; host?: string | undefined },
): Promise<Listener> {
  // Also those that are in a handshake or have become a WebSocket, which the server itself does not end.
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  return {
    port: (server.address() as AddressInfo).port, // a listening TCP server has one
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve()) // also called when it was closed before
      })
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** The whole body as text; of more than `limit` bytes it throws what `tooLong` makes. */
export async function readBody(
  request: IncomingMessage,
  limit: number,
  tooLong: () => Error,
): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit) throw tooLong()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
