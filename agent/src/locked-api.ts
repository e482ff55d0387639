import { messageOf } from '@holdfast/base'
import { type NetworkKind, sourceOf } from '@holdfast/link'
import {
  type LockedState,
  type UnlockAnswer,
  unlockPushSchema,
} from '@holdfast/protocol/locked-state'
import { agentFault } from './faults.ts'
import { isEnd } from './life-end.ts'
import type { GuardianSet, LifeState } from './life-state.ts'
import { checkedRequest } from './peer-protocol.ts'
import type { UnlockProgress } from './unlock-progress.ts'

// What anybody who reaches the peer port may see and do, whatever the phase: see how the node stands,
// and push a key. It costs a hash, a key agreement and a keyslot's derivation to try a push, so
// sources have a rate and all of them together have one.

export interface LockedApiDeps {
  node: string
  exchange: string
  state: () => LifeState | Promise<LifeState>
  progress: UnlockProgress
  network: () => Promise<NetworkKind>
  keys: 'tpm' | 'file'
  recovery: () => Promise<LockedState['recovery']>
  push: (sealed: string) => Promise<UnlockAnswer>
  onIncident: (code: string, text: string) => void
  /** Milliseconds that only ever go forward. */
  monotonic: () => number
}

const alarmsPerHour = 20

export class LockedApi {
  readonly #deps: LockedApiDeps
  readonly #looks: RateLimit
  readonly #pushes: RateLimit
  #alarms: number[] = []

  constructor(deps: LockedApiDeps) {
    this.#deps = deps
    this.#looks = new RateLimit(60, 600, deps.monotonic)
    this.#pushes = new RateLimit(6, 30, deps.monotonic)
  }

  /** @throws Fault agent.push_rate */
  async state(source: string): Promise<LockedState> {
    this.#looks.take(source)
    const { node, exchange, progress, network, keys, recovery } = this.#deps
    const life = await this.#deps.state()
    const { task, set, held } = life
    const asking = life.phase === 'locked' && set !== undefined && held === undefined
    return {
      v: 1,
      node,
      name: life.enrolment?.name ?? 'unnamed',
      phase: life.phase,
      ...(task === undefined ? {} : { task: `${task.kind}:${task.step}` }),
      ...(held === undefined ? {} : { held }),
      epoch: set?.epoch ?? 0,
      ...(asking ? { progress: progress.show(set) } : {}),
      needs: needsOf(life, progress),
      network: await network(),
      keys,
      wrongKeys: life.wrongKeys,
      lastErrors: life.lastErrors.toReversed(),
      exchange,
      recovery: await recovery(),
    }
  }

  /** @throws Fault agent.push_rate, agent.request_malformed, and as `UnlockDesk.push` */
  async unlock(source: string, body: unknown): Promise<UnlockAnswer> {
    this.#pushes.take(source)
    const { sealed } = checkedRequest(unlockPushSchema, body)
    try {
      return await this.#deps.push(sealed)
    } catch (error) {
      this.#alarm(`a key from ${source}: ${messageOf(error)}`)
      throw error
    }
  }

  /** Somebody who pushes junk must not fill the coordinator's log: every wrong key is counted anyway. */
  #alarm(text: string): void {
    const now = this.#deps.monotonic()
    this.#alarms = this.#alarms.filter((at) => now - at < 3_600_000)
    if (this.#alarms.length >= alarmsPerHour) return
    this.#alarms.push(now)
    this.#deps.onIncident('agent.push_failed', text)
  }
}

/** What people can do about a node that is not open, one sentence each. */
function needsOf(life: LifeState, progress: UnlockProgress): string[] {
  const { phase, task, set, held, genesis } = life
  if (isEnd(task)) return [`nothing: it is ending (${task.kind}, ${task.step})`]
  if (task?.kind === 'enrol' && task.step === 'await_guardians')
    return ['guardians: the coordinator chooses them once enough nodes have joined']
  const people = 'or a recovery passphrase, pushed by an operator: holdfast node unlock'
  if (task?.kind === 'enrol' && task.step === 'adopt')
    return ['the recovery passphrase of its holders, once: holdfast node unlock']
  if (phase !== 'locked') return []
  if (held !== undefined) return ['the recovery passphrase of its holders: holdfast node unlock']
  if (set === undefined)
    return genesis
      ? ['the recovery passphrase of its holders: holdfast node unlock --genesis']
      : [pinsOf(progress) ?? 'its key servers', people]
  return [...lackingOf(progress, set), people]
}

/** Which guardians lack and which other pins; never only a count of nobody. */
function lackingOf(progress: UnlockProgress, set: GuardianSet): string[] {
  const { answered, missing, threshold } = progress.show(set)
  const lacking = Math.max(0, threshold - answered.length)
  const names = missing.map(({ guardian }) => guardian.slice(0, 12)).join(', ')
  const guardians = `${lacking} more of these guardians: ${names}`.slice(0, 500)
  const pins = pinsOf(progress)
  const both = [...(lacking === 0 ? [] : [guardians]), ...(pins === undefined ? [] : [pins])]
  return both.length > 0 ? both : ['the end of this attempt: enough of its guardians have answered']
}

/** The pins besides guardians that failed; undefined when none has. */
function pinsOf({ failed }: UnlockProgress): string | undefined {
  if (failed.length === 0) return undefined
  const names = failed.map(({ pin, label }) => `${pin} ${label}`).join(', ')
  return `these pins, which failed: ${names}`.slice(0, 500)
}

/** Events of the last minute, by source and in all. */
class RateLimit {
  readonly #perSource: number
  readonly #inAll: number
  readonly #monotonic: () => number
  #recent: { source: string; at: number }[] = []

  constructor(perSource: number, inAll: number, monotonic: () => number) {
    this.#perSource = perSource
    this.#inAll = inAll
    this.#monotonic = monotonic
  }

  take(address: string): void {
    const source = sourceOf(address)
    const now = this.#monotonic()
    this.#recent = this.#recent.filter(({ at }) => now - at < 60_000)
    const own = this.#recent.filter((each) => each.source === source)
    const full = own.length >= this.#perSource ? own : this.#recent
    const limit = full === own ? this.#perSource : this.#inAll
    if (full.length >= limit) {
      const oldest = full[0]?.at ?? now
      const retryAfter = Math.max(1, Math.ceil((oldest + 60_000 - now) / 1000))
      throw agentFault('agent.push_rate', `too many requests; again in ${retryAfter} seconds`, {
        details: { retryAfter },
      })
    }
    this.#recent.push({ source, at: now })
  }
}
