import type { NodeReport } from '@holdfast/protocol/frames'
import { age } from './format.ts'
import type { Node } from './node-place.ts'
import { type Paint, type Tone, table, toneOf } from './output.ts'

// How nodes look to people. Everything is derived from what the coordinator tells; nothing is asked.

/** How a node's guardians stand, as far as the coordinator sees them. */
export interface Guarded {
  /** Guardians, and how many of them have a session and are not frozen. */
  of: number
  up: number
  /** So many are needed to open. */
  threshold: number
  /** Guardians up beyond what is needed; negative when the node could not open now. */
  margin: number
  /** Guardians that are not up, by name. */
  missing: readonly string[]
}

/** Undefined for a node that no guardian guards: it is new, or its holders or pins open it. */
export function guardedOf(node: Node, nodes: readonly Node[]): Guarded | undefined {
  if (node.guardians.length === 0) return undefined
  const byId = new Map(nodes.map((each) => [each.node, each]))
  const missing = node.guardians.flatMap((id) => {
    const guardian = byId.get(id)
    if (guardian !== undefined && guards(guardian)) return []
    return [guardian?.name ?? id.slice(0, 12)]
  })
  const of = node.guardians.length
  const up = of - missing.length
  return { of, up, threshold: node.threshold, margin: up - node.threshold, missing }
}

/** A guardian answers locked or open: its wards' keys lie outside its vault. */
function guards({ connected, phase }: Node): boolean {
  return connected && (phase === 'open' || phase === 'locked')
}

/** `●●●●○ 4/5, needs 3` */
export function guardianPicture(guarded: Guarded | undefined): string {
  if (guarded === undefined) return '-'
  const { of, up, threshold } = guarded
  const dots = of > 9 ? '' : `${'●'.repeat(up)}${'○'.repeat(of - up)} `
  return `${dots}${up}/${of}, needs ${threshold}`
}

export function signed(margin: number): string {
  return margin > 0 ? `+${margin}` : String(margin)
}

function marginTone({ margin }: Guarded): Tone {
  if (margin > 0) return 'good'
  return margin === 0 ? 'warn' : 'bad'
}

const phaseTones: Readonly<Record<Node['phase'], Tone>> = {
  factory: 'warn',
  enrolling: 'warn',
  locked: 'bad',
  open: 'good',
  rescue: 'bad',
  left: 'dim',
  wiped: 'dim',
}

/** What a person should notice first, in a few words; empty when all is well. */
export function noteOf(node: Node): string {
  const { frozen, connected, phase, report } = node
  if (phase === 'left' || phase === 'wiped') return ''
  const failed = Object.entries(report?.services ?? {}).filter(([, state]) => state === 'failed')
  return [
    ...(frozen ? ['frozen'] : []),
    ...(connected ? [] : ['not connected']),
    ...(node.reshare?.state === 'failed' ? ['re-share failed'] : []),
    ...(report !== undefined && report.incidents.length > 0
      ? [`${report.incidents.length} incidents`]
      : []),
    ...failed.map(([name]) => `${name} failed`),
  ].join(', ')
}

/** The table of `holdfast node list`. */
export async function nodeTable(
  nodes: readonly Node[],
  paint: Paint,
  now: number,
): Promise<string> {
  if (nodes.length === 0) return 'no nodes yet; the first: holdfast node enrol HOST --genesis'
  const rows = nodes.map((node) => {
    const guarded = guardedOf(node, nodes)
    return [
      node.name,
      node.node.slice(0, 12),
      paint(phaseTones[node.phase], node.phase),
      guardianPicture(guarded),
      guarded === undefined ? '-' : paint(marginTone(guarded), signed(guarded.margin)),
      String(node.wards.length),
      node.connected ? 'now' : age(node.heardAt, now),
      paint('bad', noteOf(node)),
    ]
  })
  const head = ['NODE', 'ID', 'PHASE', 'GUARDIANS', 'MARGIN', 'WARDS', 'HEARD', 'NOTE']
  return await table(head, rows)
}

/** One line for each head that has something to say. */
export function lines(rows: readonly (readonly [string, string | undefined])[]): string {
  return rows
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([head, value]) => `${head.padEnd(12)}${value}`)
    .join('\n')
}

/** Everything that is known about one node. */
export async function nodeText(
  node: Node,
  nodes: readonly Node[],
  paint: Paint,
  now: number,
): Promise<string> {
  const { report, phase, frozen, connected, heardAt, domain } = node
  const guarded = guardedOf(node, nodes)
  const heard = heardAt === undefined ? 'never heard' : `heard ${age(heardAt, now)} ago`
  const nameOf = (id: string) => nodes.find((each) => each.node === id)?.name ?? id.slice(0, 12)
  const head = lines([
    ['node', `${node.name} (${node.node})`],
    ['phase', paint(phaseTones[phase], phase)],
    ['session', connected ? `connected, ${heard}` : paint('bad', `not connected, ${heard}`)],
    ['frozen', frozen ? paint('bad', 'no guardian releases a share to it') : undefined],
    ['address', `${node.address}${domain === undefined ? '' : `, domain ${domain}`}`],
    ['guardians', guardianLine(node, guarded, nameOf, paint)],
    ['missing', guarded === undefined ? undefined : guarded.missing.join(', ')],
    ['re-share', reshareText(node, now)],
    ['wards', node.wards.map(nameOf).join(', ')],
  ])
  if (report === undefined) return head
  return [head, await reportText(report, paint, now)].join('\n')
}

/** How far its move to other guardians is; undefined when there is none. */
export function reshareText({ reshare }: Node, now: number): string | undefined {
  if (reshare === undefined) return undefined
  const { state, cause, since, reason } = reshare
  const why = reason === undefined ? '' : `: ${reason}`
  return `${state} for ${age(since, now)}, because of ${causes[cause]}${why}`
}

/** Why guardians change, in words. */
const causes: Readonly<Record<NonNullable<Node['reshare']>['cause'], string>> = {
  first: 'its enrolment',
  genesis: 'the end of its first way in',
  loss: 'a guardian that is lost',
  leave: 'a guardian that leaves',
  rules: 'a new manifest',
  join: 'a new guardian',
  schedule: 'the schedule',
}

function guardianLine(
  node: Node,
  guarded: Guarded | undefined,
  nameOf: (id: string) => string,
  paint: Paint,
): string {
  if (guarded === undefined) {
    const temporary = node.report?.ways.some(({ label }) => label === 'temporary') === true
    if (temporary) return 'none yet: after a power cut its holders open it, until peers have joined'
    return node.phase === 'enrolling' ? 'none yet' : 'none'
  }
  const margin = paint(marginTone(guarded), `margin ${signed(guarded.margin)}`)
  const names = node.guardians.map(nameOf).join(', ')
  return `${guardianPicture(guarded)}, ${margin}, epoch ${node.epoch}: ${names}`
}

function healthText({ health = {} }: NodeReport, paint: Paint): string {
  const tone = { passing: 'good', failing: 'bad', waiting: 'warn', refused: 'bad' } as const
  return Object.entries(health)
    .map(([name, state]) => `${name} ${paint(tone[state], state)}`)
    .join(', ')
}

/** Each text once, the newest first, with how often it came. */
export function counted(texts: readonly string[]): readonly string[] {
  return [...new Set(texts)].map((text) => {
    const times = texts.filter((each) => each === text).length
    return times === 1 ? text : `${text} (${times} times)`
  })
}

/** What the node says about itself. */
export async function reportText(report: NodeReport, paint: Paint, now: number): Promise<string> {
  const { mapped, network, networkReason, generation, wards, services, incidents, lastErrors } =
    report
  const vault =
    report.phase === 'open' && !mapped ? 'proven, not mapped: no device-mapper here' : undefined
  const started = `up ${age(now - report.uptimeSeconds * 1000, now)}`
  const running = Object.entries(services).map(([name, state]) =>
    state === 'running' ? `${name} running` : paint('bad', `${name} ${state}`),
  )
  const ways = report.ways.map(({ keyslot, purpose, label, state, provenAt }) => [
    String(keyslot),
    purpose,
    label,
    paint(toneOf(state), state.replace('_', ' ')),
    age(provenAt, now),
  ])
  return [
    lines([
      ['agent', `${started}, network ${network}, generation ${generation}, ${wards} wards`],
      ['no tunnel', networkReason],
      ['keys', report.keys && { tpm: 'sealed by its TPM', file: 'on its disk alone' }[report.keys]],
      ['vault', mapped ? 'mapped' : vault],
      ['held', report.held],
      ['services', running.join(', ')],
      ['health', healthText(report, paint)],
      ...counted(incidents).map((text) => [paint('bad', 'incident'), text] as const),
      ...counted(lastErrors).map((text) => ['last error', text] as const),
    ]),
    ...(ways.length === 0
      ? []
      : [await table(['KEYSLOT', 'PURPOSE', 'WAY IN', 'STATE', 'LAST PROOF'], ways)]),
  ].join('\n')
}
