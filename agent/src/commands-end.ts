import { isObject } from '@holdfast/base'
import type { PanicLevel, PanicPlan } from '@holdfast/vault'
import type { CommandHandler } from './command-handler.ts'
import { agentFault } from './faults.ts'
import type { HandlerDeps } from './handler-deps.ts'
import type { LifeEvent } from './life-event.ts'

// Ends of a node's life begin here; the life carries them out, over restarts, and answers when they
// are over.

type Deps = Pick<HandlerDeps, 'tell' | 'ending' | 'supersede'>

async function begin(
  { tell, ending, supersede }: Deps,
  event: LifeEvent & { kind: 'leave' | 'wipe' | 'panic' },
): Promise<undefined> {
  const { command } = event
  const before = ending()
  if (before === command) return undefined
  if (await tell(event)) {
    if (before !== undefined && before !== '') await supersede(before, command)
    return undefined
  }
  const reason =
    before === undefined
      ? `this node cannot ${event.kind} in its present phase`
      : 'another end of this node is under way and goes at least as far'
  throw agentFault('agent.command_refused', reason)
}

/** Leaves the fleet, once no other node needs this one; `force` does not ask for that. */
export function leaveHandler(deps: Deps): CommandHandler<'leave'> {
  return {
    restart: 'again',
    run: ({ id, given: { force } }) =>
      begin(deps, { kind: 'leave', command: id, ...(force ? { force } : {}) }),
  }
}

/** Destroys the keys of the vault; the identity stays, so that the receipt can be delivered. */
export function resetHandler(deps: Deps): CommandHandler<'reset'> {
  return { restart: 'again', run: ({ id }) => begin(deps, { kind: 'wipe', command: id }) }
}

/** Locks, or destroys as far as the level says; a dry run answers with the plan and begins nothing. */
export function panicHandler(deps: Deps & Pick<HandlerDeps, 'vault'>): CommandHandler<'panic'> {
  return {
    restart: 'again',
    run: async ({ id, given: { level, dryRun } }) => {
      if (!dryRun) return await begin(deps, { kind: 'panic', level, command: id })
      return { plan: nodePlan(level, await deps.vault.describeEnd(level)) }
    },
  }
}

/** What an order would do to the node, beside what it would do to the volume. */
function nodePlan(level: PanicLevel, volume: PanicPlan | undefined): Record<string, unknown> {
  const found: unknown = JSON.parse(JSON.stringify(volume ?? {}))
  const plan = isObject(found) ? found : {}
  const list = (value: unknown) => (Array.isArray(value) ? value : [])
  const [destroys, survives] = nodeFate(level)
  return {
    ...plan,
    level,
    destroys: [...list(plan.destroys), ...destroys],
    survives: [...list(plan.survives), ...survives],
  }
}

function nodeFate(level: PanicLevel): [destroys: string[], survives: string[]] {
  if (level === 1)
    return [
      [],
      [
        "the node's identity; it stays locked until an operator pushes a key",
        'the exchange keys of its wards: it goes on guarding them',
      ],
    ]
  const evidence = 'the signed receipt, at the coordinator and in receipts/ on the node'
  return [
    [
      "the node's identity, exchange and tunnel keys and its certificate, after the receipt is out",
      'the exchange keys of its wards: each of them has one guardian less',
      'its boot state, its guardians and its documents: it starts again as a new machine',
    ],
    [evidence, 'the log of the releases it made as a guardian'],
  ]
}
