import { nodeRoutes } from '@holdfast/protocol'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { Context, Outcome } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import { fleetHere } from './fleet-here.ts'
import { age } from './format.ts'
import type { Input } from './input.ts'
import { logText } from './log-line.ts'
import { lockedStateOf } from './node-locked.ts'
import { follow, limitsOf, type Ordered, order } from './node-order.ts'
import { type Client, confirmedName, type Node, nodeFrom } from './node-place.ts'
import { lines, nodeTable, nodeText, reportText } from './node-text.ts'
import { whyLocked, whyText } from './node-why.ts'
import { asFault, painter, printError, table } from './output.ts'

// Looking at nodes, and what the coordinator does about them by itself.

/** `holdfast node list` */
export async function listAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const { nodes } = await client.call(nodeRoutes.list)
  return { json: nodes, text: await nodeTable(nodes, painter(), context.clock.now()) }
}

/** `holdfast node show` */
export async function showAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const { client, node } = found
  const { nodes } = await client.call(nodeRoutes.list)
  return { json: node, text: await nodeText(node, nodes, painter(), context.clock.now()) }
}

/** What `--help` says about them stands in node-commands.ts. */
const codeOf: Readonly<Record<Node['phase'], number>> = {
  open: 0,
  locked: 2,
  rescue: 2,
  factory: 3,
  enrolling: 3,
  left: 1,
  wiped: 1,
}

/** `holdfast node status`: asks the node itself. */
export async function statusAction(input: Input, context: Context): Promise<Outcome> {
  try {
    using found = await nodeFrom(input, context)
    const { client, node } = found
    const followed = await order(client, node, { kind: 'status' }, limitsOf(input), context)
    if (!followed.ended) return unwaited(followed.command)
    const { report } = followed.data
    const paint = painter()
    const why = await whyOf(client, node, report, context)
    const text = [
      `${node.name} is ${report.phase}`,
      ...(why === undefined ? [] : [whyText(why, paint)]),
      ...(report.phase === 'rescue' || report.phase === 'enrolling'
        ? [lines([['next', `holdfast doctor node ${node.name}`]])]
        : []),
      await reportText(report, paint, context.clock.now()),
    ].join('\n')
    const locked = why === undefined ? {} : { locked: why }
    const json = { node: node.node, name: node.name, report, ...locked }
    return { json, text, code: codeOf[report.phase] }
  } catch (error) {
    if (context.signal.aborted) throw error
    if (!context.json) await printError(error, 'holdfast node status', context)
    return { json: { error: asFault(error) }, text: '', code: 1 }
  }
}

/** Why it is locked; undefined when it is not. */
async function whyOf(client: Client, node: Node, report: NodeReport, context: Context) {
  if (report.phase !== 'locked') return undefined
  const [{ nodes }, state, here] = await Promise.all([
    client.call(nodeRoutes.list),
    lockedStateOf(node, context),
    fleetHere(context),
  ])
  return whyLocked({
    ...{ node: nodes.find((each) => each.node === node.node) ?? node, nodes, report },
    ...(state === undefined ? {} : { state }),
    ...(here === undefined ? {} : { here }),
  })
}

function unwaited(command: Ordered): Outcome {
  return { json: command, text: command.id }
}

/** `holdfast node commands` */
export async function commandsAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const params = { node: found.node.node }
  const { commands } = await found.client.call(nodeRoutes.commands, { params })
  const now = context.clock.now()
  const paint = painter()
  const rows = commands.map(({ id, command, by, state, created, code, message }) => [
    id,
    command,
    state === 'failed' || state === 'expired' ? paint('bad', state) : state,
    by,
    `${age(created, now)} ago`,
    [code, message]
      .filter((text) => text !== undefined)
      .join(': ')
      .slice(0, 80),
  ])
  const head = ['ID', 'COMMAND', 'STATE', 'BY', 'ORDERED', 'WHAT CAME OF IT']
  return { json: commands, text: rows.length === 0 ? 'none yet' : await table(head, rows) }
}

/** `holdfast node wait` */
export async function waitAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const params = { id: input.requiredWord(0, 'ID') }
  const begun = await client.call(nodeRoutes.commandState, { params })
  const seconds = input.count('timeout', 1, 86_400) ?? 300
  const paint = painter()
  const streaming = begun.command === 'logs' ? (line: string) => logText(line, paint) : true
  const done = await follow(client, begun, { seconds, streaming }, context)
  const shown = Object.keys(done.result ?? {}).length > 0 ? JSON.stringify(done.result) : ''
  return { json: done, text: [`${done.command} is done`, shown].filter(Boolean).join('\n') }
}

/** `holdfast node approve` */
export async function approveAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const params = { id: input.requiredWord(0, 'ID') }
  const command = await client.call(nodeRoutes.approve, { params })
  return {
    json: command,
    text: [
      `${command.command}, ordered by ${command.by}, is approved`,
      ...(command.progress === undefined ? [] : [command.progress]),
      `next: holdfast node wait ${command.id}`,
    ].join('\n'),
  }
}

/** `holdfast node freeze` */
export async function freezeAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const { client, node } = found
  const reason = input.requiredText('reason')
  await client.call(nodeRoutes.freeze, { params: { node: node.node }, body: { reason } })
  const asked = node.guardians.length
  return {
    json: { node: node.node, name: node.name, frozen: true, guardians: asked },
    text: `${node.name} is frozen: none of its ${asked} guardians releases a share to it any more\nback: holdfast node unfreeze ${node.name}`,
  }
}

/** `holdfast node unfreeze` */
export async function unfreezeAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const { client, node } = found
  await client.call(nodeRoutes.unfreeze, { params: { node: node.node } })
  return {
    json: { node: node.node, name: node.name, frozen: false },
    text: `${node.name} gets its shares again`,
  }
}

/** `holdfast node remove` */
export async function removeAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const { client, node } = found
  const what = [
    `${node.name} will be forgotten: its certificate opens nothing any more, and its wards get other guardians.`,
  ]
  await confirmedName(node, what, input, context)
  await client.call(nodeRoutes.remove, { params: { node: node.node } })
  return {
    json: { node: node.node, name: node.name, removed: true },
    text: `${node.name} is forgotten; enrolling it again needs a new invite`,
  }
}
