import { join } from 'node:path'
import { type DrillResult, drills, type Evidence, runDrill } from '@holdfast/drills'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { painter, table } from './output.ts'
import { progressOf } from './progress.ts'

/** `holdfast drill list` */
export async function listAction(): Promise<Outcome> {
  const rows = drills.map(({ name, title }) => [name, title])
  return {
    json: drills.map(({ name, title, summary }) => ({ name, title, summary })),
    text: await table(['NAME', 'WHAT HAPPENS'], rows),
  }
}

/** `holdfast drill run` */
export async function runAction(input: Input, context: Context): Promise<Outcome> {
  const names = input.flag('all') ? drills.map(({ name }) => name) : input.words(0)
  if (names.length === 0) {
    throw cliFault('cli.usage', 'no drill is named', {
      hint: 'name some of holdfast drill list, or give --all',
    })
  }
  using progress = await progressOf(context, names.length)
  const results: DrillResult[] = []
  for (const name of names) {
    context.signal.throwIfAborted()
    progress.update(results.length, name)
    const result = await runOne(name, input, context)
    results.push(result)
    // A run of all takes minutes: each result is a line of its own as soon as it is there.
    if (context.json) await context.streams.out(`${JSON.stringify(result)}\n`)
  }
  const failed = results.filter(({ passed }) => !passed)
  return {
    json: undefined,
    text: summary(results),
    ...(failed.length === 0 ? {} : { kind: 'integrity' as const }),
  }
}

async function runOne(name: string, input: Input, context: Context): Promise<DrillResult> {
  const { streams, settings, json, signal } = context
  const live = !json && !streams.errIsTerminal
  return await runDrill(name, {
    directory: input.text('directory') ?? join(settings.runtimeDirectory, 'drills'),
    command: {
      program: process.execPath,
      args: [settings.program, 'keyserver', 'serve', '--json'],
    },
    coordinator: {
      program: process.execPath,
      args: [settings.program, 'coordinator', 'serve', '--json'],
    },
    agent: { program: process.execPath, args: [settings.program, 'agent', 'serve', '--json'] },
    signal,
    timeout: (input.count('timeout', 1, 86_400) ?? 120) * 1000,
    ...(live ? { onEvent: (evidence) => streams.err(`  ${eventLine(evidence)}`) } : {}),
  })
}

/** The timeline of every drill, and a line of judgement for each. */
function summary(results: readonly DrillResult[]): string {
  const paint = painter()
  return results
    .flatMap(({ name, passed, seconds, evidence, problem }) => [
      paint('strong', name),
      ...evidence.map((one) => `  ${eventLine(one)}`),
      `  ${passed ? paint('good', 'passed') : paint('bad', 'failed')} in ${seconds.toFixed(1)} s`,
      ...(problem === undefined ? [] : [`  ${problem.code}: ${problem.message}`]),
      '',
    ])
    .concat(`${results.filter(({ passed }) => passed).length} of ${results.length} drills passed`)
    .join('\n')
}

function eventLine({ at: _, after, step, proven, ...facts }: Evidence): string {
  const mark = proven === undefined ? ' ' : proven ? '+' : '!'
  const shown = Object.entries(facts).map(([name, value]) => `${name}=${factText(value)}`)
  return `${(after / 1000).toFixed(2).padStart(7)} s ${mark} ${[step, ...shown].join('  ')}`
}

function factText(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > 100 ? `${text.slice(0, 97)}...` : text
}
