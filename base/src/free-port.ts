import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'
import { codeOf } from './files.ts'

const tries = 32

/**
 * A TCP port that nobody listens on now, by chance and below those that systems give to whoever asks
 * for any port (ip_local_port_range, ip(7)). It stays this process's as long as that lives, also while
 * nobody listens there: nobody else who asks here is given it, in whatever process.
 * @param host the address it is free at
 * @param draw names the next port to try
 */
export async function freePort(
  host = '127.0.0.1',
  draw = () => randomInt(12_000, 32_000),
): Promise<number> {
  for (let left = tries; left > 0; left -= 1) {
    const port = draw()
    try {
      await reserve(port)
      return await listenOnce(host, port)
    } catch (error) {
      if (codeOf(error) !== 'EADDRINUSE') throw error
    }
  }
  return await listenOnce(host, 0)
}

/**
 * Takes the port's name among the abstract sockets (unix(7)), which belong to the network namespace, as
 * ports do, and end with their process however it ends.
 */
function reserve(port: number): Promise<void> {
  const name = createServer().unref()
  return new Promise((resolve, reject) => {
    name.once('error', reject)
    name.listen({ path: `\0holdfast-port-${port}` }, resolve)
  })
}

async function listenOnce(host: string, port: number): Promise<number> {
  const probe = createServer()
  return await new Promise((resolve, reject) => {
    probe.once('error', reject)
    probe.listen({ host, port }, () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}
