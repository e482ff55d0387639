import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'
import { codeOf } from './files.ts'

const tries = 32

/**
 * A TCP port that nobody listens on now, by chance and below those that systems give to whoever asks
 * for any port (ip_local_port_range, ip(7)): whoever gives it up for a moment gets it back. Another one
 * who chooses by chance may take it all the same.
 * @param host the address it is free at
 */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (let left = tries; left > 0; left -= 1) {
    try {
      return await listenOnce(host, randomInt(12_000, 32_000))
    } catch (error) {
      if (codeOf(error) !== 'EADDRINUSE') throw error
    }
  }
  return await listenOnce(host, 0)
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
