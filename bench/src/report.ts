import type { Machine } from './machine.ts'
import type { BenchResult, Ratios } from './result.ts'
import type { Figures } from './statistics.ts'
import { type Judged, judge } from './targets.ts'

/** One line per program and result, for a person. */
export function asTable(machine: Machine, results: readonly BenchResult[]): string {
  const lines = results.flatMap((result) => [
    '',
    result.name,
    ...figureLines(result).map(({ who, figures }) => `  ${who.padEnd(28)}${figures}`),
    ...result.notes.map((note) => `  ${note}`),
  ])
  const verdicts = judge(results).map((judged) => `  ${judged.verdict.padEnd(13)}${wanted(judged)}`)
  const targets = verdicts.length === 0 ? [] : ['', 'targets', ...verdicts]
  return `${[describe(machine), ...lines, ...targets].join('\n')}\n`
}

/** The same as a document, for bench/RESULTS.md. */
export function asMarkdown(machine: Machine, results: readonly BenchResult[]): string {
  const verdicts = judge(results).map(
    (judged) => `| ${judged.says} | ${bound(judged)} | ${shown(judged)} | ${judged.verdict} |`,
  )
  const sections = results.flatMap((result) => [
    `### ${result.name}`,
    '',
    '| | |',
    '|---|---|',
    ...figureLines(result).map(({ who, figures }) => `| ${who} | ${figures} |`),
    '',
    ...result.notes.map((note) => `- ${note}`),
    '',
  ])
  return `${[
    '# Measurements',
    '',
    'Written by `npm run bench -- all --write`. Every figure is a median over rounds in which ours and',
    'the others were measured in turn on the same machine, the load generator included. Processor',
    'time is that of the whole process tree of a server, or of a command and all it runs. A ratio',
    'says how many times better ours is; "paired" is the median of the ratios of neighbouring rounds.',
    '',
    describe(machine),
    '',
    '## Targets',
    '',
    '| what | target | measured | |',
    '|---|---|---|---|',
    ...verdicts,
    '',
    ...reasons(results),
    '## Figures',
    '',
    ...sections,
  ]
    .join('\n')
    .trimEnd()}\n`
}

function describe(machine: Machine): string {
  const { cpu, cores, memoryGiB, kernel, node, openssl, loadBefore } = machine
  const { tang, clevis, jose, cryptsetup, opensslDebian } = machine
  return [
    `Machine: ${cpu}, ${cores} cores, ${memoryGiB} GiB, Linux ${kernel}, load average before ${loadBefore}.`,
    `Ours: Node ${node} with OpenSSL ${openssl}.`,
    `Debian: tang ${tang}, clevis ${clevis}, jose ${jose}, cryptsetup ${cryptsetup}, OpenSSL ${opensslDebian}.`,
  ].join('\n')
}

interface Line {
  who: string
  figures: string
}

function figureLines({ ours, peers, ratios }: BenchResult): Line[] {
  const others = Object.entries(peers).flatMap(([peer, figures]): Line[] => {
    if (figures === null) return [{ who: peer, figures: 'not measured, see below' }]
    const { pairwise = {}, ...ofMedians }: Partial<Ratios> = ratios[peer] ?? {}
    const better = Object.entries(ofMedians)
      .map(([name, value]) => `${name} ${value} (paired ${pairwise[name] ?? '-'})`)
      .join(', ')
    return [
      { who: peer, figures: listed(figures) },
      { who: `times better than ${peer}`, figures: better },
    ]
  })
  return [{ who: 'ours', figures: listed(ours) }, ...others]
}

function listed(figures: Figures): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')
}

function bound({ atLeast, atMost, peer }: Judged): string {
  if (atLeast === undefined) return `at most ${atMost}`
  return `at least ${atLeast}${peer === undefined ? '' : ' times better'}`
}

function shown({ value }: Judged): string {
  return value === undefined ? '-' : String(value)
}

function wanted(judged: Judged): string {
  return `${judged.says}: ${bound(judged)}, measured ${shown(judged)}`
}

/** Why what was not reached was not, as far as the figures themselves say it. */
function reasons(results: readonly BenchResult[]): string[] {
  const missed = judge(results).filter(({ verdict }) => verdict !== 'met')
  if (missed.length === 0) return ['Every target was met.', '']
  const lines = missed.map((judged) => {
    const result = results.find(({ name }) => name === judged.result)
    return `- ${judged.says}: ${judged.verdict}. ${result === undefined ? '' : reason(judged, result)}`
  })
  return ['What was not reached, and why:', '', ...lines, '']
}

function reason({ verdict, peer = '' }: Judged, { ours, peers, notes }: BenchResult): string {
  if (verdict === 'not measured') return notes.find((note) => note.includes('fork')) ?? ''
  const theirs = peers[peer] ?? {}
  if (ours.cpuMicrosPerRequest !== undefined) return serverReason(ours, peer, theirs)
  if (ours.wallMs === undefined) return notes[0] ?? ''
  const times = ({ wallMs, cpuMs }: Figures) => `${wallMs} ms, ${cpuMs} ms of it processor time`
  const other = theirs.wallMs === undefined ? '' : `; ${peer} takes ${times(theirs)}`
  return `Ours takes ${times(ours)}${other}. What \`node-alone\` takes in startup/version is the floor.`
}

function serverReason(ours: Figures, peer: string, theirs: Figures): string {
  const { cpuMicrosPerRequest: server = 0, clientCpuMicrosPerRequest: client = 0 } = ours
  const other = theirs.cpuMicrosPerRequest ?? Number.NaN
  const share = Math.round((client / (client + server)) * 100)
  return (
    `One request costs our server ${server} µs of processor time and ${peer} ${other} µs, ` +
    `${(other / server).toFixed(1)} times as much; the load generator shares the same cores ` +
    `and takes ${share} % of what our requests use.`
  )
}
