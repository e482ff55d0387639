import type { Context, Outcome } from './command.ts'
import type { Input } from './input.ts'
import { told } from './node-command-actions.ts'
import { confirmedName, nodeFrom } from './node-place.ts'
import { keepReceipt, nodePlanText, receiptText } from './node-receipt.ts'
import { levelFrom } from './panic-level.ts'

// What ends a node's life, or locks it: each is confirmed with the node's name.

/** `holdfast node leave` */
export async function leaveAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const { node } = found
  const force = input.flag('force')
  const what = [
    `${node.name} will give its ${node.wards.length} wards to other guardians, then destroy its keys and leave.`,
    ...(force ? ['With --force it goes even where a ward falls below its margin.'] : []),
  ]
  const confirmation = await confirmedName(node, what, input, context)
  const wanted = { kind: 'leave', arguments: { force }, confirmation } as const
  return await told(found, wanted, input, context, async () => ({
    text: `${node.name} has left; nothing depends on it\nnext: holdfast node remove ${node.name} --confirm ${node.name}`,
  }))
}

/** `holdfast node reset` */
export async function resetAction(input: Input, context: Context): Promise<Outcome> {
  using found = await nodeFrom(input, context)
  const { node } = found
  const what = [
    `${node.name} will destroy every keyslot of its vault first, and then be forgotten by its guardians. Its data is gone for good.`,
  ]
  const confirmation = await confirmedName(node, what, input, context)
  return await told(
    found,
    { kind: 'reset', confirmation },
    input,
    context,
    async ({ receipt = {} }) => await receiptOutcome(`${node.name} is wiped`, receipt, input),
  )
}

async function receiptOutcome(
  title: string,
  receipt: Readonly<Record<string, unknown>>,
  input: Input,
): Promise<Omit<Outcome, 'json'>> {
  const file = await keepReceipt(receipt, input)
  const { text, failed } = receiptText(receipt)
  return {
    text: [
      title,
      ...(text === '' ? [] : [text]),
      ...(file === undefined ? [] : [`receipt ${file}`]),
    ].join('\n'),
    ...(failed === 0 ? {} : { kind: 'internal' as const }),
  }
}

const consequences = {
  1: 'will stop its services and close its vault; a key must be pushed to open it again.',
  2: 'will destroy its keys. Only a sealed header backup together with the holders brings its data back.',
  3: 'will destroy its keys and every copy of them. Nothing brings its data back.',
} as const

/** `holdfast node panic` */
export async function panicAction(input: Input, context: Context): Promise<Outcome> {
  const level = levelFrom(input, 'node panic')
  using found = await nodeFrom(input, context)
  const { node } = found
  if (input.flag('dry-run')) {
    const wanted = { kind: 'panic', arguments: { level, dryRun: true } } as const
    return await told(found, wanted, input, context, async ({ plan = {} }) => ({
      text: nodePlanText(plan, node.name),
    }))
  }
  const what = [`${node.name} ${consequences[level]}`]
  const confirmation = await confirmedName(node, what, input, context)
  const wanted = { kind: 'panic', arguments: { level, dryRun: false }, confirmation } as const
  return await told(
    found,
    wanted,
    input,
    context,
    async ({ receipt = {} }) =>
      await receiptOutcome(`panic ${level} of ${node.name} is finished`, receipt, input),
  )
}
