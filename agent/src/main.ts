import { appendFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { isFault } from '@holdfast/base'
import { enrolmentPort, tunnelPort } from '@holdfast/link'
import { type AgentEvent, type AgentOptions, startAgent } from './agent.ts'
import { peerPort } from './guardian-server.ts'

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
      'enrolment-port': { type: 'string', default: `${enrolmentPort}` },
      'peer-port': { type: 'string', default: `${peerPort}` },
      'wireguard-port': { type: 'string', default: `${tunnelPort}` },
    },
  })
  const { device } = values
  if (device === undefined) throw new TypeError('--device is needed: the disk that holds the vault')
  return { ...values, device }
}

async function main(): Promise<void> {
  const values = given()
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  const options: AgentOptions = {
    directory: values.directory,
    runtimeDirectory: values.runtime,
    device: values.device,
    ...(values.host === undefined ? {} : { host: values.host }),
    enrolmentPort: Number(values['enrolment-port']),
    peerPort: Number(values['peer-port']),
    wireguardPort: Number(values['wireguard-port']),
    onEvent: (event) => show(event, values.console),
  }
  await using agent = await startAgent(options, stop.signal)
  process.stdout.write(`${JSON.stringify({ ready: true, node: agent.node, pid: process.pid })}\n`)
  await new Promise<void>((resolve) => {
    stop.signal.addEventListener('abort', () => resolve(), { once: true })
    if (stop.signal.aborted) resolve()
  })
}

function show(event: AgentEvent, terminal: string | undefined): void {
  if (event.kind !== 'code' || terminal === undefined) {
    process.stderr.write(`${JSON.stringify(event)}\n`)
    return
  }
  appendFile(terminal, `\nenrolment code: ${event.code}\n`).catch((error: Error) => {
    process.stderr.write(`${JSON.stringify({ kind: 'console_failed', message: error.message })}\n`)
  })
}

try {
  await main()
} catch (error) {
  const shown = isFault(error) ? error : { message: String(error) }
  process.stderr.write(`${JSON.stringify(shown)}\n`)
  process.exitCode = 1
}
