import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseJsonObject, run } from '@holdfast/base'
import type { BenchContext } from './bench.ts'
import { childrenTime } from './process-cpu.ts'
import { type BenchResult, compare } from './result.ts'
import type { Figures } from './statistics.ts'

// What a newcomer waits for after `npm start`.

const cli = fileURLToPath(new URL('../../cli/src/main.ts', import.meta.url))

/** From the start of `holdfast up` until six nodes are opened by their peers, and its clean end. */
export async function benchUp(context: BenchContext): Promise<BenchResult[]> {
  const name = 'up/six-nodes'
  if (!context.selects(name)) return []
  context.progress(name)
  const rounds: Figures[] = []
  for (let round = 0; round < Math.min(context.rounds, 3); round += 1) {
    const directory = join(await context.folder(), 'fleet')
    const before = childrenTime()
    const began = performance.now()
    const args = [cli, 'up', '--directory', directory, '--json', '--exit-when-ready']
    const { stdout } = await run(process.execPath, args, { timeout: 300_000 })
    const wholeSeconds = (performance.now() - began) / 1000
    const { seconds } = parseJsonObject(stdout.toString('utf8'), 'the document of up')
    const cpuSeconds = (childrenTime() - before) / 1e6
    rounds.push({ readySeconds: Number(seconds), wholeSeconds, cpuSeconds })
  }
  return [compare(name, rounds, {}, [], notes)]
}

const notes = [
  'a coordinator on SQLite, three key servers and six nodes with LUKS2 volumes as processes of their own: claimed, enrolled (the first by genesis), moved to their peers, each proven by a close and a reopen',
  'readySeconds: as `holdfast up --json --exit-when-ready` says it; wholeSeconds: the command with its start, its end and the removal of its files',
]
