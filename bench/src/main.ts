import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { isFault, messageOf } from '@holdfast/base'
import { benchAgents } from './agents-bench.ts'
import type { BenchContext } from './bench.ts'
import { benchKeyServer } from './keyserver-bench.ts'
import { describeMachine } from './machine.ts'
import { benchOpen, benchStartup } from './open-bench.ts'
import { benchRekey } from './rekey-bench.ts'
import { asMarkdown, asTable } from './report.ts'
import { benchReshare } from './reshare-bench.ts'
import type { BenchResult } from './result.ts'
import { benchStorm } from './storm-bench.ts'
import { benchUnlock } from './unlock-bench.ts'
import { benchUp } from './up-bench.ts'

// npm run bench -- NAME [--json] [--write] [--rounds N] [--seconds S] [--agents N] [--tangd-fork PROGRAM]
// NAME is `all` or the beginning of a result's name, such as `keyserver` or `open/tang1`.

const benches = {
  keyserver: benchKeyServer,
  open: benchOpen,
  startup: benchStartup,
  storm: benchStorm,
  rekey: benchRekey,
  agents: benchAgents,
  unlock: benchUnlock,
  reshare: benchReshare,
  up: benchUp,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    agents: { type: 'string' },
    'tangd-fork': { type: 'string' },
  },
})

const [wanted = 'all'] = positionals
const selects = (name: string): boolean => wanted === 'all' || name.startsWith(wanted)

function positive(name: 'rounds' | 'seconds' | 'agents'): number {
  const value = Number(values[name])
  if (value > 0 && Number.isFinite(value)) return value
  throw new Error(`--${name} must be a number above 0`)
}

async function main(): Promise<void> {
  if (values.write && values.agents !== undefined)
    throw new Error('--write needs the usual sizes: without --agents')
  if (values.write && wanted !== 'all') throw new Error('--write needs all: it replaces RESULTS.md')
  await using cleanup = new AsyncDisposableStack()
  const context: BenchContext = {
    rounds: Math.ceil(positive('rounds')),
    seconds: positive('seconds'),
    agents: values.agents === undefined ? undefined : Math.ceil(positive('agents')),
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
  if (results.length === 0) {
    throw new Error(
      `no bench is named ${wanted}; there are all, ${Object.keys(benches).join(', ')}`,
    )
  }
  process.stdout.write(
    values.json ? `${JSON.stringify({ machine, results })}\n` : asTable(machine, results),
  )
  if (values.write) {
    const file = fileURLToPath(new URL('../RESULTS.md', import.meta.url))
    await writeFile(file, asMarkdown(machine, results))
  }
}

try {
  await main()
} catch (error) {
  const hint = isFault(error) && error.hint !== undefined ? `\nhint: ${error.hint}` : ''
  process.stderr.write(`error: ${messageOf(error)}${hint}\n`)
  process.exitCode = 1
}
