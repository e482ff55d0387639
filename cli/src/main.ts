import module from 'node:module'
import { homedir, userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Settings } from './command.ts'
import { version } from './version.ts'

// The only file of this part that reads the environment, handles signals or sets the exit code. What
// it needs beyond that is loaded only when there is a command to run.

function settingsOf(environment: NodeJS.ProcessEnv): Settings {
  const root = process.getuid?.() === 0
  const state = environment.XDG_STATE_HOME ?? join(homedir(), '.local/state')
  const runtime = environment.XDG_RUNTIME_DIR ?? `/tmp/holdfast-${process.getuid?.() ?? 0}`
  const { TPM2TOOLS_TCTI: tcti, SUDO_USER: behind } = environment
  return {
    stateDirectory:
      environment.HOLDFAST_STATE_DIR ?? (root ? '/var/lib/holdfast' : join(state, 'holdfast')),
    runtimeDirectory:
      environment.HOLDFAST_RUNTIME_DIR ?? (root ? '/run/holdfast' : join(runtime, 'holdfast')),
    ...(tcti === undefined ? {} : { tcti }),
    actor: behind === undefined ? userName() : `${behind} (sudo)`,
    program: fileURLToPath(import.meta.url),
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

/** Runs the command; the first Ctrl-C asks it to stop, the second ends the process at once. */
async function run(words: readonly string[]): Promise<number> {
  // The launcher has done so before; servers and agents are started without it.
  module.enableCompileCache(fileURLToPath(new URL('../dist/.compile-cache/', import.meta.url)))
  const [{ runCommand }, { processStreams }, { controllingTerminal }] = await Promise.all([
    import('./run-command.ts'),
    import('./streams.ts'),
    import('./terminal.ts'),
  ])
  const commandTree = async () => (await import('./tree.ts')).commandTree
  const stop = new AbortController()
  let signalCode = 130
  const stopWith = (code: number) => {
    signalCode = code
    stop.abort(new Error('stopped by a signal'))
  }
  process.once('SIGINT', () => stopWith(130))
  process.once('SIGTERM', () => stopWith(143))
  process.once('SIGHUP', () => stopWith(143)) // the terminal is gone: clean up all the same
  return await runCommand(commandTree, words, {
    settings: settingsOf(process.env),
    streams: processStreams(),
    terminal: () => controllingTerminal(),
    signal: stop.signal,
    signalCode: () => signalCode,
  })
}

const words = process.argv.slice(2)
if (words.length === 1 && (words[0] === '--version' || words[0] === '-V')) console.log(version)
else process.exitCode = await run(words)
