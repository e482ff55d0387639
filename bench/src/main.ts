import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { BenchContext } from './bench.ts'
import { benchKeyServer } from './keyserver-bench.ts'
import { describeMachine } from './machine.ts'
import { benchOpen, benchStartup } from './open-bench.ts'
import { asMarkdown, asTable } from './report.ts'
import type { BenchResult } from './result.ts'
import { benchStorm } from './storm-bench.ts'

// npm run bench -- NAME [--json] [--write] [--rounds N] [--seconds S] [--tangd-fork PROGRAM]
// NAME is `all` or the beginning of a result's name, such as `keyserver` or `open/tang1`.

const benches = {
  keyserver: benchKeyServer,
  open: benchOpen,
  startup: benchStartup,
  storm: benchStorm,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    'tangd-fork': { type: 'string' },
  },
})

const [wanted = 'all'] = positionals
const selects = (name: string): boolean => wanted === 'all' || name.startsWith(wanted)

async function main(): Promise<void> {
  await using cleanup = new AsyncDisposableStack()
  const context: BenchContext = {
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    tangdFork: values['tangd-fork'],
    selects,
    folder: async () => {
      const path = await mkdtemp(join(tmpdir(), 'holdfast-bench-'))
      cleanup.defer(() => rm(path, { recursive: true, force: true }))
      return path
    },
    progress: (what) => process.stderr.write(`measuring ${what}\n`),
  }
  const machine = await describeMachine()
  const results: BenchResult[] = []
  for (const [name, bench] of Object.entries(benches)) {
    if (selects(name) || wanted.startsWith(name)) results.push(...(await bench(context)))
  }
  if (results.length === 0) throw new Error(`no bench is named ${wanted}`)
  process.stdout.write(
    values.json ? `${JSON.stringify({ machine, results })}\n` : asTable(machine, results),
  )
  if (values.write) {
    const file = fileURLToPath(new URL('../RESULTS.md', import.meta.url))
    await writeFile(file, asMarkdown(machine, results))
  }
}

await main()
