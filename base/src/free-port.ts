import { createServer } from 'node:net'

/**
 * A TCP port that nobody listens on now, from the system's own range. Somebody else may have taken it
 * by the time it is used.
 * @param host the address it is free at
 */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  const probe = createServer()
  return await new Promise((resolve, reject) => {
    probe.once('error', reject)
    probe.listen({ host, port: 0 }, () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}
