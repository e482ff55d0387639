import { homedir, userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Settings } from './command.ts'
import { runCommand } from './run-command.ts'
import { processStreams } from './streams.ts'
import { controllingTerminal } from './terminal.ts'
import { commandTree } from './tree.ts'
import { version } from './version.ts'

// The only file of this part that reads the environment, handles signals or sets the exit code.

function settingsOf(environment: NodeJS.ProcessEnv): Settings {
  const root = process.getuid?.() === 0
  const state = environment.XDG_STATE_HOME ?? join(homedir(), '.local/state')
  const runtime = environment.XDG_RUNTIME_DIR ?? `/tmp/holdfast-${process.getuid?.() ?? 0}`
  const { TPM2TOOLS_TCTI: tcti, SUDO_USER: behind } = environment
  const file = fileURLToPath(import.meta.url)
  return {
    stateDirectory:
      environment.HOLDFAST_STATE_DIR ?? (root ? '/var/lib/holdfast' : join(state, 'holdfast')),
    runtimeDirectory:
      environment.HOLDFAST_RUNTIME_DIR ?? (root ? '/run/holdfast' : join(runtime, 'holdfast')),
    ...(tcti === undefined ? {} : { tcti }),
    actor: behind === undefined ? userName() : `${behind} (sudo)`,
    program: [process.execPath, file],
    version,
  }
}

function userName(): string {
  try {
    return userInfo().username
  } catch {
    return String(process.getuid?.() ?? 'unknown')
  }
}

const stop = new AbortController()
let signalCode = 130
for (const [name, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  // Once: a second Ctrl-C ends the process at once.
  process.once(name, () => {
    signalCode = code
    stop.abort(new Error(`stopped by ${name}`))
  })
}

process.exitCode = await runCommand(commandTree, process.argv.slice(2), {
  settings: settingsOf(process.env),
  streams: processStreams(),
  terminal: () => controllingTerminal(),
  signal: stop.signal,
  signalCode: () => signalCode,
})
