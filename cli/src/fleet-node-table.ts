import type { ControlPlaneState, NodeState } from '@holdfast/drills'
import { age, moment } from './format.ts'
import { type Paint, type Tone, table } from './output.ts'

// The nodes and the coordinator of the local fleet, as a table and as lines.

const phaseTones: Readonly<Record<string, Tone>> = {
  open: 'good',
  locked: 'bad',
  off: 'bad',
  rescue: 'bad',
}

/** A row for each node: who opens it, how many may fail, when that was last proven. */
export async function nodesTable(
  { nodes }: ControlPlaneState,
  paint: Paint,
  now: number,
): Promise<string> {
  const rows = nodes.map((node) => [
    node.name,
    paint(phaseTones[node.phase] ?? 'warn', node.phase),
    openedBy(node),
    marginText(node, paint),
    moment(node.lastProof),
    age(node.lastProof, now),
    node.note.length > 40 ? `${node.note.slice(0, 37)}...` : node.note,
  ])
  return await table(['NODE', 'PHASE', 'OPENED BY', 'MARGIN', 'LAST PROOF', 'AGE', 'NOTE'], rows)
}

function openedBy({ epoch, threshold, guardians }: NodeState): string {
  return epoch === 0 ? 'holders, for now' : `${threshold} of ${guardians} guardians`
}

function marginText({ margin }: NodeState, paint: Paint): string {
  if (margin === undefined) return '-'
  const text = margin > 0 ? `+${margin}` : String(margin)
  return margin < 0 ? paint('bad', text) : text
}

/** One line about the coordinator. */
export function coordinatorLine({ coordinator, nodes }: ControlPlaneState, paint: Paint): string {
  const { url, pid, state, text } = coordinator
  const tone = state === 'running' ? 'good' : 'bad'
  const connected = nodes.filter((node) => node.connected).length
  const sessions =
    state === 'running' ? `; ${connected} of ${nodes.length} nodes connected` : `: ${text}`
  return `coordinator: ${paint(tone, state)} on ${url}${pid === undefined ? '' : ` (${pid})`}${sessions}`
}

/** One line for each thing that differs from before. */
export function controlChanges(
  before: ControlPlaneState | undefined,
  after: ControlPlaneState,
  at: number,
): string[] {
  const { state, text, hint } = after.coordinator
  const next = hint === '' || state === 'running' ? '' : `; next: ${hint}`
  const coordinator =
    before?.coordinator.state === state
      ? []
      : [`${moment(at)}  coordinator: ${state}${state === 'running' ? '' : `: ${text}${next}`}`]
  const nodes = after.nodes.flatMap((node) => {
    const old = before?.nodes.find(({ name }) => name === node.name)
    if (old?.phase === node.phase && old.epoch === node.epoch && old.margin === node.margin)
      return []
    const margin = node.margin === undefined ? '' : `, margin ${node.margin}`
    return [`${moment(at)}  ${node.name}: ${node.phase}, ${openedBy(node)}${margin}`]
  })
  return [...coordinator, ...nodes]
}
