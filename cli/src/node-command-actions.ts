import {
  type CommandKind,
  type FirstBootStep,
  firstBootSteps,
  nodeRoutes,
  type ServiceStatus,
} from '@holdfast/protocol'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { logText } from './log-line.ts'
import { followLogs, logArguments } from './node-logs.ts'
import { type Followed, limitsOf, type Order, order, unendedText } from './node-order.ts'
import { type Client, type Node, nodeFrom } from './node-place.ts'
import { painter, table, toneOf } from './output.ts'

// What nodes are told to do, one function for each command that can be told again.

/** Orders, follows, and shows what came of it; an order that is not waited for is shown as such. */
export async function told<Kind extends CommandKind>(
  { client, node }: { client: Client; node: Node },
  wanted: Order<Kind>,
  input: Input,
  context: Context,
  show: (data: (Followed<Kind> & { ended: true })['data']) => Promise<Omit<Outcome, 'json'>>,
): Promise<Outcome> {
  const followed = await order(client, node, wanted, limitsOf(input), context)
  const { command } = followed
  if (followed.ended)
    return { json: { ...command, result: followed.data }, ...(await show(followed.data)) }
  const waits = command.state === 'confirm' && !input.flag('no-wait')
  return {
    json: command,
    text: unendedText(command, node.name),
    ...(waits ? { kind: 'unavailable' as const } : {}),
  }
}

/** `holdfast node services` */
export async function servicesAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  return await told(found, { kind: 'services' }, input, context, async ({ services }) => {
    const bad = services.some(({ state }) => state === 'failed')
    const shown =
      services.length === 0 ? 'the manifest gives it no services' : await servicesText(services)
    return { text: shown, ...(bad ? { kind: 'unavailable' as const } : {}) }
  })
}

async function servicesText(services: readonly ServiceStatus[]): Promise<string> {
  const paint = painter()
  const tone = { running: 'good', failed: 'bad', stopped: 'warn', refused: 'bad' } as const
  const rows = services.map(({ name, state, unit = '', detail = '' }) => [
    name,
    paint(tone[state], state),
    unit,
    detail,
  ])
  return await table(['SERVICE', 'STATE', 'UNIT', 'NOTE'], rows)
}

/** `holdfast node restart` */
export async function restartAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const wanted = {
    kind: 'restart',
    arguments: { service: input.requiredWord(1, 'SERVICE') },
  } as const
  return await told(found, wanted, input, context, async ({ service }) => ({
    text: `${service.name} is ${service.state}${service.detail === undefined ? '' : `: ${service.detail}`}`,
    ...(service.state === 'running' ? {} : { kind: 'unavailable' as const }),
  }))
}

/** `holdfast node logs` */
export async function logsAction(input: Input, context: Context): Promise<Outcome | undefined> {
  using found = await nodeFrom(input, context)
  if (input.flag('follow')) return await followLogs(found, input, context)
  const paint = painter()
  const followed = await order(
    found.client,
    found.node,
    { kind: 'logs', arguments: logArguments(input), streaming: (line) => logText(line, paint) },
    limitsOf(input),
    context,
  )
  const { command } = followed
  if (!followed.ended) return { json: command, text: unendedText(command, found.node.name) }
  const { lines, truncated } = followed.data
  if (truncated && !context.json) context.streams.err(`the last ${lines} lines; there are more`)
  return { json: { lines, truncated, output: command.output ?? '' }, text: '' }
}

/** `holdfast node reboot` */
export async function rebootAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const wanted = { kind: 'reboot', arguments: { force: input.flag('force') } } as const
  return await told(found, wanted, input, context, async () => ({
    text: `${found.node.name} has rebooted and is back`,
  }))
}

/** `holdfast node rehearse` */
export async function rehearseAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  return await told(found, { kind: 'rehearse' }, input, context, async (data) => {
    const paint = painter()
    const guardians = guardiansOf(data)
    const { nodes } = await found.client.call(nodeRoutes.list)
    const nameOf = (id: string) => nodes.find(({ node }) => node === id)?.name ?? id.slice(0, 12)
    const rows = [
      ...data.ways.map((way) => [
        `keyslot ${way.keyslot}`,
        paint(toneOf(way.state), way.state.replace('_', ' ')),
        String(way.problem ?? ''),
      ]),
      ...guardians.map(({ guardian, healthy, message }) => [
        `guardian ${nameOf(guardian)}`,
        paint(healthy ? 'good' : 'bad', healthy ? 'has its share' : 'failed'),
        message,
      ]),
    ]
    const bad =
      data.ways.some(({ state }) => state === 'failed') || guardians.some(({ healthy }) => !healthy)
    return {
      text: await table(['WAY IN', 'STATE', 'NOTE'], rows),
      ...(bad ? { kind: 'unavailable' as const } : {}),
    }
  })
}

function guardiansOf(data: Readonly<Record<string, unknown>>) {
  const found = Array.isArray(data.guardians) ? data.guardians : []
  return found.map((each: Readonly<Record<string, unknown>>) => ({
    guardian: String(each.guardian),
    healthy: each.healthy === true,
    message: String(each.message ?? ''),
  }))
}

/** `holdfast node rekey` */
export async function rekeyAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  return await told(found, { kind: 'rekey' }, input, context, async ({ ways }) => ({
    text: `${found.node.name} has new passphrases in ${ways.length} ways: ${ways.map(({ keyslot, label }) => `keyslot ${keyslot} (${label})`).join(', ')}`,
  }))
}

/** `holdfast node first-boot` */
export async function firstBootAction(input: Input, context: Context): Promise<Outcome> {
  const renew = input.texts('renew').map(stepNamed)
  using found = await nodeFrom(input, context)
  const wanted = { kind: 'first-boot', arguments: { renew } } as const
  return await told(found, wanted, input, context, async ({ steps }) => ({
    text: await table(
      ['STEP', 'OUTCOME', 'NOTE'],
      steps.map(({ name, outcome, detail = '' }) => [name, outcome, detail]),
    ),
  }))
}

function stepNamed(text: string): FirstBootStep {
  const step = firstBootSteps.find((each) => each === text)
  if (step !== undefined) return step
  throw cliFault('cli.usage', `"${text}" is not a step: ${firstBootSteps.join(', ')}`)
}
