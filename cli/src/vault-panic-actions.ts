import {
  describePanic,
  executePanic,
  type PanicLevel,
  type PanicPlan,
  preparePanic,
  resumePanic,
  type StoredReceipt,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { painter } from './output.ts'
import { levelFrom } from './panic-level.ts'
import { readPolicyFile } from './policy-input.ts'
import { uuidFrom } from './vault-header-actions.ts'
import { vaultDepsFrom, volumeFrom } from './volume.ts'

/** `holdfast vault panic` */
export async function panicAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  if (input.flag('resume')) return await resume(input, deps)
  const [volume, code] = [volumeFrom(input), input.text('code')]
  if (code !== undefined) {
    return receiptOutcome(await executePanic(deps, volume, await uuidFrom(input, deps), code))
  }
  const level = levelFrom(input, 'vault panic')
  if (input.flag('dry-run')) {
    const plan = await describePanic(deps, volume, level, input.text('uuid'))
    return { json: { plan }, text: planText(plan) }
  }
  return await prepare(input, context, deps, volume, level)
}

/** Shows the plan; at a terminal the code must be typed, elsewhere a second command gives it. */
async function prepare(
  input: Input,
  context: Context,
  deps: VaultDeps,
  volume: VolumeRef,
  level: PanicLevel,
): Promise<Outcome> {
  const [uuid, file] = [input.text('uuid'), input.text('policy')]
  const policy = file === undefined ? undefined : await readPolicyFile(file)
  const prepared = await preparePanic(deps, volume, level, {
    acknowledgeIrreversible: input.flag('irreversible'),
    ...(uuid === undefined ? {} : { uuid }),
    ...(policy === undefined ? {} : { policy }),
  })
  const { plan, code, expires } = prepared
  const until = new Date(expires).toISOString()
  if (context.terminal === undefined || context.json) {
    const again = `to do it: holdfast vault panic ${volume.device} --code ${code}`
    return {
      json: { plan, code, expires: until },
      text: `${planText(plan)}\nnothing is done yet; ${again} (until ${until})`,
    }
  }
  context.streams.err(planText(plan))
  const typed = await context.terminal.line(`Type ${code} to do this`, context.signal)
  if (typed.trim().toUpperCase() !== code) {
    throw cliFault('cli.confirmation_refused', 'that is not the code; nothing was done')
  }
  return receiptOutcome(await executePanic(deps, volume, plan.uuid, code))
}

async function resume(input: Input, deps: VaultDeps): Promise<Outcome> {
  const uuid = await uuidFrom(input, deps)
  const receipt = await resumePanic(deps, uuid, input.flag('accept-failures'))
  if (receipt === undefined) return { json: { receipt: null }, text: 'no wipe was interrupted' }
  return receiptOutcome(receipt)
}

/** What a wipe will do and leave. */
export function planText(plan: PanicPlan): string {
  const paint = painter()
  const section = (title: string, lines: readonly string[]) =>
    lines.length === 0 ? [] : [`${title}:`, ...lines.map((line) => `  ${line}`)]
  const wayBack = plan.wayBack ?? paint('bad', 'none: nothing brings this volume back')
  return [
    `panic ${plan.level} of ${plan.device} (${plan.uuid})`,
    ...section('destroys', plan.destroys),
    ...section('survives', plan.survives),
    ...section(
      'cannot reach',
      plan.unreachable.map(({ what, why }) => `${what} (${why})`),
    ),
    ...section('note', plan.notes),
    `way back: ${wayBack}`,
  ].join('\n')
}

function receiptOutcome({ path, digest, receipt }: StoredReceipt): Outcome {
  const failed = receipt.steps.filter(({ result }) => result === 'failed')
  const text = [
    `panic ${receipt.level} of ${receipt.device} is finished`,
    ...failed.map(({ step }) => `${painter()('bad', 'failed')}: ${step.do.replaceAll('_', ' ')}`),
    ...receipt.unreachable.map(({ what, why }) => `cannot reach: ${what} (${why})`),
    `receipt ${path}`,
    `sha256 ${digest}`,
  ].join('\n')
  return {
    json: { path, digest, receipt },
    text,
    ...(failed.length === 0 ? {} : { kind: 'internal' as const }),
  }
}
