import { parseArgs } from 'node:util'
import { isFault } from '@holdfast/base'
import { enrolmentPort, tunnelPort } from '@holdfast/link'
import { peerPort } from './guardian-server.ts'
import { hardwareOptions, runAgent, usualTunnel } from './process.ts'

// The agent as a process. One line of JSON on standard output when it runs; one per event on standard
// error. With --console the enrolment code goes to that terminal alone, as text.

function given() {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string', default: '/var/lib/holdfast' },
      runtime: { type: 'string', default: '/run/holdfast' },
      device: { type: 'string' },
      host: { type: 'string' },
      console: { type: 'string' },
      mount: { type: 'string' },
      'reboot-command': { type: 'string' },
      'boot-id': { type: 'string' },
      'enrolment-port': { type: 'string', default: `${enrolmentPort}` },
      'peer-port': { type: 'string', default: `${peerPort}` },
      'wireguard-port': { type: 'string', default: `${tunnelPort}` },
      tunnel: { type: 'string', default: usualTunnel },
      tpm: { type: 'string' },
    },
  })
  const { device } = values
  if (device === undefined) throw new TypeError('--device is needed: the disk that holds the vault')
  return { ...values, device }
}

async function main(): Promise<void> {
  // Whoever read the log has gone: what runs goes on.
  process.stderr.on('error', () => undefined)
  const values = given()
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  const options = {
    directory: values.directory,
    runtimeDirectory: values.runtime,
    device: values.device,
    ...(values.host === undefined ? {} : { host: values.host }),
    enrolmentPort: Number(values['enrolment-port']),
    peerPort: Number(values['peer-port']),
    wireguardPort: Number(values['wireguard-port']),
    ...hardwareOptions(values.tunnel, values.tpm),
    works: {
      ...(values.mount === undefined ? {} : { mountPath: values.mount }),
      ...(values['reboot-command'] === undefined
        ? {}
        : { rebootCommand: values['reboot-command'] }),
      ...(values['boot-id'] === undefined ? {} : { bootIdPath: values['boot-id'] }),
    },
  }
  const shown = {
    ...(values.console === undefined ? {} : { console: values.console }),
    onReady: async (ready: object) => {
      process.stdout.write(`${JSON.stringify(ready)}\n`)
    },
    write: (line: string) => {
      process.stderr.write(line)
    },
  }
  await runAgent(options, shown, stop.signal)
}

try {
  await main()
} catch (error) {
  const shown = isFault(error) ? error : { message: String(error) }
  process.stderr.write(`${JSON.stringify(shown)}\n`)
  process.exitCode = 1
}
