import type { Inspection, Rehearsal } from '@holdfast/seal'
import { type Paint, toneOf } from './output.ts'

/** A sealed secret's tree as indented text. */
export function inspectionText(node: Inspection, depth = 0): string {
  const indent = '  '.repeat(depth)
  const title = node.pin === 'sss' ? `threshold ${node.label}` : `${node.pin} ${node.label}`
  const lines = [`${indent}${title}`]
  const fact = (name: string, value: unknown) => {
    if (value !== undefined) lines.push(`${indent}  ${name}: ${String(value)}`)
  }
  fact('set', node.set)
  fact('generation', node.generation)
  fact('sealed to key', node.kid)
  for (const key of node.keys ?? []) fact(`${key.use} key`, `${key.thumbprint} (${key.crv})`)
  for (const [name, value] of Object.entries(node.details ?? {})) fact(name, value)
  return [...lines, ...(node.children ?? []).map((child) => inspectionText(child, depth + 1))].join(
    '\n',
  )
}

/** Rows of a rehearsal table: pin, state, milliseconds, margin or reason. */
export function rehearsalRows(node: Rehearsal, paint: Paint, depth = 0): string[][] {
  const title = node.pin === 'sss' ? `threshold ${node.label}` : `${node.pin} ${node.label}`
  const note =
    node.margin === undefined ? (node.fault?.message ?? '') : `margin ${signed(node.margin)}`
  const row = [
    `${'  '.repeat(depth)}${title}`,
    paint(toneOf(node.state), node.state.replace('_', ' ')),
    `${Math.round(node.milliseconds)} ms`,
    note,
  ]
  return [row, ...(node.children ?? []).flatMap((child) => rehearsalRows(child, paint, depth + 1))]
}

/** The kind of trouble a rehearsal means for an exit code; undefined when the secret would open. */
export function troubleOf(rehearsal: Rehearsal): 'unavailable' | 'integrity' | undefined {
  if (rehearsal.state === 'proven') return undefined
  return rehearsal.fault?.kind === 'integrity' ? 'integrity' : 'unavailable'
}

function signed(value: number): string {
  return value > 0 ? `+${value}` : String(value)
}
