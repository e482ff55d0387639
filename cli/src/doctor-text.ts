import type { Outcome } from './command.ts'
import type { Diagnosis, Finding, State } from './doctor-findings.ts'
import { type Paint, painter, type Tone } from './output.ts'

const marks: Readonly<Record<State, { mark: string; tone: Tone }>> = {
  ok: { mark: 'ok', tone: 'good' },
  warning: { mark: 'WARN', tone: 'warn' },
  failed: { mark: 'FAILED', tone: 'bad' },
  'not looked at': { mark: '-', tone: 'dim' },
}

/** Exit codes of a diagnosis; `--help` says so in doctor-commands.ts. */
const codes: Readonly<Record<Diagnosis['verdict'], number>> = { healthy: 0, failed: 2, warned: 3 }

/** The layers from the bottom up, and below them what to type. */
export function diagnosisText({ subject, findings }: Diagnosis, paint: Paint): string {
  const rows = findings.map(({ state, layer, text }) => {
    const { mark, tone } = marks[state]
    const shown = state === 'not looked at' ? paint('dim', `not looked at: ${text}`) : text
    return `${paint(tone, mark.padEnd(8))}${layer.padEnd(13)}${shown}`
  })
  return [subject, ...rows, ...conclusion(findings, paint)].join('\n')
}

/** Most commands that are shown; who has more to do begins with these. */
const mostCommands = 4

/** What people should begin with: the layer that failed, or else every warning. */
function worstOf(findings: readonly Finding[]): readonly Finding[] {
  const broken = findings.filter(({ state }) => state === 'failed').slice(0, 1)
  return broken.length > 0 ? broken : findings.filter(({ state }) => state === 'warning')
}

function commandsOf(findings: readonly Finding[]): readonly string[] {
  return [...new Set(worstOf(findings).flatMap(({ next = [] }) => next))].slice(0, mostCommands)
}

function conclusion(findings: readonly Finding[], paint: Paint): string[] {
  const worst = worstOf(findings)
  const [first] = worst
  if (first === undefined) return [paint('good', 'nothing is wrong')]
  const title = first.state === 'failed' ? 'the layer that failed' : 'to be looked at'
  const next = commandsOf(findings).map((command) => `  ${command}`)
  return [
    `${title}: ${worst.map(({ layer }) => layer).join(', ')}`,
    ...(next.length === 0 ? [] : ['next:', ...next]),
  ]
}

export function diagnosisOutcome(found: Diagnosis): Outcome {
  const broken = found.findings.find(({ state }) => state === 'failed')
  return {
    json: { ...found, failed: broken?.layer ?? null, next: commandsOf(found.findings) },
    text: diagnosisText(found, painter()),
    code: codes[found.verdict],
  }
}
