import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'

// What crash tests of a part of the agent share: a program beside them, as a process of its own that is
// killed after its n-th effect.

export interface Ran {
  killed: boolean
  /** What it wrote on its standard output until then. */
  text: string
}

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/**
 * Runs a program of this folder to its end, or until it is killed.
 * @param killAt the effect, from 1; 0 for no kill
 * @throws Fault base.program_failed with its standard error when it fails by itself
 */
export async function runKilled(
  program: string,
  args: readonly string[],
  killAt: number,
): Promise<Ran> {
  const words = ['--import', file('kill-at-effect.ts'), file(program), ...args]
  const { code, stdout } = await run(process.execPath, words, {
    accept: [0, 137],
    environment: { HOLDFAST_KILL_AT: `${killAt}` },
  })
  return { killed: code === 137, text: stdout.toString('utf8') }
}
