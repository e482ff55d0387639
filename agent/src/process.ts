import { appendFile } from 'node:fs/promises'
import { type AgentEvent, type AgentOptions, startAgent } from './agent.ts'

// The agent as a process: what it prints, and how long it runs. The command line and this part's own
// main file use it alike.

export interface AgentProcess {
  /** A terminal that alone is shown the enrolment code, as text; otherwise it is an event. */
  console?: string
  /** Told once, when the agent runs. */
  onReady: (ready: { ready: true; node: string; pid: number }) => Promise<void>
  /** One line of JSON for each event. */
  write: (line: string) => void
}

/** Runs the agent until the signal. */
export async function runAgent(
  options: Omit<AgentOptions, 'onEvent'>,
  { console: terminal, onReady, write }: AgentProcess,
  signal: AbortSignal,
): Promise<void> {
  const onEvent = (event: AgentEvent) => {
    if (event.kind === 'code' && terminal !== undefined) showCode(event.code, terminal, write)
    else write(`${JSON.stringify(event)}\n`)
  }
  await using agent = await startAgent({ ...options, onEvent }, signal)
  await onReady({ ready: true, node: agent.node, pid: process.pid })
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true })
    if (signal.aborted) resolve()
  })
}

function showCode(code: string, terminal: string, write: (line: string) => void): void {
  appendFile(terminal, `\nenrolment code: ${code}\n`).catch((error: Error) => {
    write(`${JSON.stringify({ kind: 'console_failed', message: error.message })}\n`)
  })
}
