import { nodeRoutes, statusRoutes } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context, Outcome } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import type { Input } from './input.ts'
import type { Client, Node } from './node-place.ts'
import { guardedOf, lines, nodeTable } from './node-text.ts'
import { asFault, type Paint, painter, printError, type Tone } from './output.ts'

type Status = z.output<typeof statusRoutes.status.output>

/** What `--help` says about them stands in status-commands.ts. */
const codeOf: Readonly<Record<Status['state'], number>> = {
  running: 0,
  recovery: 2,
  ready: 3,
  uninitialised: 3,
}
const tones: Readonly<Record<Status['state'], Tone>> = {
  running: 'good',
  recovery: 'bad',
  ready: 'warn',
  uninitialised: 'warn',
}

/** `holdfast status` */
export async function statusAction(input: Input, context: Context): Promise<Outcome> {
  try {
    using client = await clientFrom(input, context)
    const status = await client.call(statusRoutes.status)
    const nodes = await nodesIf(status, client, context.signal)
    const json = { ...status, ...(nodes === undefined ? {} : { list: nodes }) }
    const text = await statusText(status, nodes, painter(), context.clock.now())
    return { json, text, code: codeOf[status.state] }
  } catch (error) {
    if (context.signal.aborted) throw error
    if (!context.json) await printError(error, 'holdfast status', context)
    return { json: { error: asFault(error) }, text: '', code: 1 }
  }
}

/** The nodes, when the coordinator is open and somebody is logged in. */
async function nodesIf(
  { state }: Status,
  client: Client,
  signal: AbortSignal,
): Promise<readonly Node[] | undefined> {
  if (state !== 'running' || client.place.token === undefined) return undefined
  try {
    return (await client.call(nodeRoutes.list)).nodes
  } catch {
    signal.throwIfAborted()
    return undefined // whose token it is, is the doctor's business
  }
}

/** The coordinator in a few lines, and the table of nodes. */
export async function statusText(
  status: Status,
  nodes: readonly Node[] | undefined,
  paint: Paint,
  now: number,
): Promise<string> {
  const { state, reason, text, hint, name, holders, ceremony, alarms } = status
  const head = lines([
    ['coordinator', `${paint(tones[state], state)} (${reason}): ${text}`],
    ['cluster', name],
    [
      'holders',
      holders &&
        `${holders.threshold} of ${holders.list.length} needed, ${holders.provenWithin90Days} proven in 90 days`,
    ],
    [
      'ceremony',
      ceremony &&
        `${ceremony.kind}: ${ceremony.answered.join(', ') || 'nobody'} answered, ${ceremony.missing} missing`,
    ],
    ['nodes', nodes === undefined ? countOf(status) : summaryOf(nodes, paint)],
    ...alarms.map((alarm) => [paint('bad', 'alarm'), alarm] as const),
    ['next', state === 'running' ? nextOf(nodes) : hint],
  ])
  if (nodes === undefined || nodes.length === 0) return head
  return `${head}\n${await nodeTable(nodes, paint, now)}`
}

function countOf({ nodes }: Status): string | undefined {
  if (nodes === undefined) return undefined
  return `${nodes.connected} of ${nodes.total} connected, ${nodes.locked} locked`
}

/** Where to look when a node is not as it should be. */
function nextOf(nodes: readonly Node[] = []): string | undefined {
  const well = nodes.every((node) => {
    const over = node.phase === 'left' || node.phase === 'wiped'
    const fine = node.connected && node.phase === 'open' && !node.frozen
    return over || (fine && (guardedOf(node, nodes)?.margin ?? 0) >= 0)
  })
  return well ? undefined : 'holdfast doctor'
}

/** `5 of 6 open; not connected: node-3; could not open now: node-2` */
function summaryOf(nodes: readonly Node[], paint: Paint): string {
  const here = nodes.filter(({ phase }) => phase !== 'left' && phase !== 'wiped')
  // Of one that is not connected nobody knows whether it is still open.
  const open = here.filter(({ phase, connected }) => phase === 'open' && connected)
  const list = (title: string, found: readonly Node[]) =>
    found.length === 0
      ? []
      : [
          paint(
            'bad',
            `${title}: ${found
              .slice(0, 5)
              .map(({ name }) => name)
              .join(', ')}`,
          ),
        ]
  return [
    `${open.length} of ${here.length} open`,
    ...list(
      'not connected',
      here.filter(({ connected }) => !connected),
    ),
    ...list(
      'locked',
      here.filter(({ phase }) => phase === 'locked'),
    ),
    ...list(
      'too few guardians',
      here.filter((node) => (guardedOf(node, nodes)?.margin ?? 0) < 0),
    ),
    ...list(
      'frozen',
      here.filter(({ frozen }) => frozen),
    ),
  ].join('; ')
}
