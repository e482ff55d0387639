import { join } from 'node:path'
import { DurableRecord } from '@holdfast/base'
import type { CommandData, FirstBootStep } from '@holdfast/protocol/commands'
import { z } from 'zod'
import { agentFault } from './faults.ts'

// A first boot converges: every step looks whether it is so already, does what is missing, and looks
// again. It may be stopped anywhere and run again at any time. What a `renew` has made anew is
// written down under its command, so that a command run again after a stop does not do it twice.

export interface BootStep {
  name: FirstBootStep
  /** `absent`: this machine has no place for it, which is no failure; the text says why. */
  check(): Promise<'kept' | 'missing' | { absent: string }>
  /** Makes what is missing; with `renew` all of it. */
  make(renew: boolean): Promise<void>
  detail?(): Promise<string>
  /** Why it cannot be renewed, if it cannot. */
  fixed?: string
}

type Outcome = CommandData<'first-boot'>['steps'][number]

const recordSchema = z.strictObject({
  v: z.literal(1),
  command: z.string(),
  renewed: z.array(z.string()),
})

export interface FirstBootOrder {
  /** Names what to do anew. */
  renew: readonly FirstBootStep[]
  /** The command that renews. */
  command?: string
}

/**
 * Runs the steps in their order.
 * @throws Fault agent.first_boot_unverified, agent.command_refused for a step that cannot be renewed
 */
export async function firstBoot(
  directory: string,
  steps: readonly BootStep[],
  { renew, command = '' }: FirstBootOrder,
): Promise<Outcome[]> {
  for (const { name, fixed } of steps) {
    if (fixed !== undefined && renew.includes(name))
      throw agentFault('agent.command_refused', `${name} cannot be renewed: ${fixed}`)
  }
  const record = new DurableRecord(join(directory, 'first-boot.json'), (value) =>
    recordSchema.parse(value),
  )
  const known = await record.read()
  const renewed = new Set(known?.command === command ? known.renewed : [])
  const outcomes: Outcome[] = []
  for (const step of steps) {
    const anew = renew.includes(step.name)
    const outcome = await one(step, anew && !renewed.has(step.name))
    if (anew && outcome.outcome === 'renewed') {
      renewed.add(step.name)
      await record.write({ v: 1, command, renewed: [...renewed] })
    }
    outcomes.push(anew && renewed.has(step.name) ? { ...outcome, outcome: 'renewed' } : outcome)
  }
  return outcomes
}

async function one(step: BootStep, renew: boolean): Promise<Outcome> {
  const { name } = step
  const before = await step.check()
  if (typeof before === 'object') return { name, outcome: 'absent', detail: before.absent }
  const needed = before === 'missing' || renew
  if (needed) {
    await step.make(renew)
    if ((await step.check()) !== 'kept')
      throw agentFault('agent.first_boot_unverified', `${name} was made and does not verify`)
  }
  const outcome = renew ? 'renewed' : needed ? 'made' : 'kept'
  const detail = await step.detail?.()
  return { name, outcome, ...(detail === undefined ? {} : { detail }) }
}
