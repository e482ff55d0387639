import { freePort } from './free-port.ts'
import { type RunningProgram, startProgram } from './spawn.ts'

/**
 * For tests of several parts: the distribution's tangd as its systemd socket runs it, executed for each
 * connection with the connection as its standard streams. Without a port it chooses a free one, which
 * stays free while it is stopped.
 */
export async function listenAsTangd(
  directory: string,
  port?: number,
): Promise<{ running: RunningProgram; port: number }> {
  const address = `TCP4-LISTEN:${port ?? (await freePort())},bind=127.0.0.1,fork,reuseaddr,backlog=512`
  const command = `exec socat -d -d ${address} EXEC:"/usr/libexec/tangd ${directory}" 2>&1`
  const said = /listening on .*:(\d+)$/
  const { running, line } = await startProgram('bash', ['-c', command], (text) => said.test(text), {
    readyWithin: 60_000,
  })
  return { running, port: Number(said.exec(line)?.[1]) }
}
