import { existsSync } from 'node:fs'
import { appendFile } from 'node:fs/promises'
import { startAgent } from './agent.ts'
import type { AgentEvent, AgentOptions } from './agent-options.ts'

// The agent as a process: what it prints, and how long it runs. The command line and this part's own
// main file use it alike.

/** Name of the tunnel's network interface unless configured otherwise. */
export const usualTunnel = 'holdfast0'
const usualTpm = '/dev/tpmrm0'

/**
 * What a process was told about the machine it runs on; `off` does without. A TPM is used where the
 * kernel shows one.
 */
export function hardwareOptions(
  tunnel = usualTunnel,
  tpm: string | undefined = existsSync(usualTpm) ? `device:${usualTpm}` : 'off',
): Pick<AgentOptions, 'tunnel' | 'tpm'> {
  return {
    ...(tunnel === 'off' ? {} : { tunnel: { name: tunnel } }),
    ...(tpm === 'off' ? {} : { tpm }),
  }
}

export interface AgentProcess {
  /** A terminal that alone is shown the enrolment code, as text; otherwise it is an event. */
  console?: string
  /** Told once, when the agent runs. */
  onReady: (ready: { ready: true; node: string; pid: number }) => Promise<void>
  /** One line of JSON for each event. */
  write: (line: string) => void
}

/** Runs the agent until the signal; after panic 2 or 3 it goes on as the new machine that it is then. */
export async function runAgent(
  options: Omit<AgentOptions, 'onEvent'>,
  { console: terminal, onReady, write }: AgentProcess,
  signal: AbortSignal,
): Promise<void> {
  let forgotten = new AbortController()
  const onEvent = (event: AgentEvent) => {
    if (event.kind === 'forgotten') forgotten.abort()
    if (event.kind === 'code' && terminal !== undefined) showCode(event.code, terminal, write)
    else write(`${JSON.stringify(event)}\n`)
  }
  for (let first = true; !signal.aborted; first = false) {
    forgotten = new AbortController()
    await using agent = await startAgent({ ...options, onEvent }, signal)
    if (first) await onReady({ ready: true, node: agent.node, pid: process.pid })
    const over = AbortSignal.any([signal, forgotten.signal])
    await new Promise<void>((resolve) => {
      over.addEventListener('abort', () => resolve(), { once: true })
      if (over.aborted) resolve()
    })
  }
}

function showCode(code: string, terminal: string, write: (line: string) => void): void {
  appendFile(terminal, `\nenrolment code: ${code}\n`).catch((error: Error) => {
    write(`${JSON.stringify({ kind: 'console_failed', message: error.message })}\n`)
  })
}
