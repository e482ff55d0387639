import {
  due,
  type GuardianSet,
  type LifeEffect,
  type LifeEvent,
  type LifeState,
  type step,
} from '@holdfast/agent'
import type { Enrolment } from '@holdfast/protocol/frames'
import { BootState, GuardedKeys, VaultDisk, type Way } from './disk.ts'
import { keyOf, type Report } from './messages.ts'
import type { Partitions } from './network.ts'
import { Uplink, type UplinkTarget } from './uplink.ts'
import { Machine, type World } from './world.ts'

// A node: the agent's real reducer, carried out on a simulated disk and against simulated guardians.
// What is due is derived from the durable state, as agent/src/life-runner.ts does it: one effect at a
// time, repeated until it succeeds, stopped when another is due.

/** What a node has around it. */
export interface Surroundings {
  world: World
  partitions: Partitions
  /** The instances that it may connect to. */
  coordinators: readonly UplinkTarget[]
  /** Whose turn it is when one has not answered, as link/src/session.ts has it. */
  nextCoordinator: (turn: number) => number
  step: typeof step
  /** Called after every durable change that could cost somebody a way in. */
  check: () => void
  /** A guardian has destroyed its key of an epoch. */
  retired: (guardian: string, ward: string, epoch: number) => void
  peer: (node: string) => SimulatedNode | undefined
}

export class SimulatedNode extends Machine {
  readonly disk: VaultDisk
  readonly keys: GuardedKeys
  readonly uplink: Uplink
  /** The highest freeze list that this node has; durable. */
  freeze: { version: number; frozen: readonly string[] } = { version: 0, frozen: [] }
  state: LifeState
  readonly around: Surroundings
  readonly #boot: BootState
  #temporaryKey = false
  #running = ''
  #run = 0

  constructor(name: string, around: Surroundings) {
    super(around.world, name)
    this.around = around
    this.disk = new VaultDisk(this, around.check)
    this.keys = new GuardedKeys(this)
    this.#boot = new BootState(this)
    this.state = this.#boot.load()
    this.uplink = new Uplink(this)
  }

  /** True once its vault is destroyed on purpose, or the machine is. */
  get hasEnded(): boolean {
    return (
      this.gone ||
      this.disk.endOrdered ||
      this.state.phase === 'left' ||
      this.state.phase === 'wiped'
    )
  }

  get report(): Report {
    const { phase, set } = this.state
    const automatic = [...this.disk.ways].map(([keyslot, { epoch, proven }]) =>
      reported(keyslot, 'automatic', `epoch ${epoch}`, proven),
    )
    const holders = reported(0, 'recovery', 'holders', this.disk.holdersProven)
    return {
      phase,
      epoch: set?.epoch ?? 0,
      threshold: set?.threshold ?? 0,
      guardians: set?.guardians.map(({ node }) => node) ?? [],
      ways: this.disk.header === 'nothing' ? [] : [holders, ...automatic],
    }
  }

  accept(enrolment: Enrolment): void {
    this.attempt(() => {
      this.take({ kind: 'accepted', enrolment })
      this.uplink.connect()
    })
  }

  /** Lets the reducer take an event in; durable before anything is done about it. */
  take(event: LifeEvent): boolean {
    const { state } = this.around.step(this.state, event)
    const changed = state !== this.state
    if (changed) {
      const before = this.state.set?.epoch ?? 0
      if ((state.set?.epoch ?? before) < before)
        this.world.fail(`${this.name} went back from epoch ${before} to ${state.set?.epoch}`)
      if (event.kind !== 'failed') this.world.note(`${this.name} ${event.kind} -> ${named(state)}`)
      const told = state.phase !== this.state.phase || state.set !== this.state.set
      this.#boot.save(state)
      this.state = state
      if (told) this.uplink.report()
    }
    this.#schedule()
    return changed
  }

  protected override onDark(): void {
    this.disk.mapped = false
    this.#temporaryKey = false
    this.#running = ''
    this.uplink.goDark()
  }

  protected override onWake(): void {
    this.state = this.#boot.load()
    this.take({ kind: 'started', open: false })
    this.uplink.connect()
  }

  #schedule(): void {
    const effect = due(this.state)
    const key = effect === undefined ? '' : nameOf(effect)
    if (key === this.#running) return
    this.#running = key
    this.#run += 1
    if (effect !== undefined) this.#later(effect, this.world.between(50, 2_000))
  }

  #later(effect: LifeEffect, delay: number): void {
    const run = this.#run
    this.after(delay, () => {
      if (run === this.#run) this.#do(effect)
    })
  }

  #do(effect: LifeEffect): void {
    const event = this.world.fault(0.05)
      ? ({ kind: 'failed', text: effect.kind } as const)
      : this.#perform(effect)
    if (event === undefined) return // it says when it is done
    if (event.kind === 'failed') {
      this.take(event)
      this.#later(effect, this.world.between(1_000, 60_000))
      return
    }
    // It is over: if the next state asks for the same again, it is started anew.
    this.#running = ''
    this.take(event)
  }

  #perform(effect: LifeEffect): LifeEvent | undefined {
    switch (effect.kind) {
      case 'open_port':
        return undefined
      case 'probe':
        return { kind: 'probed', found: this.disk.header, text: '' }
      case 'format':
        return this.#format(effect.set)
      case 'close':
      case 'lock':
        this.disk.mapped = false
        return { kind: 'closed' }
      case 'unlock':
        return this.#unlock()
      case 'bind':
        return this.#bind(effect.set)
      case 'prove':
        return this.#prove(effect)
      case 'drop':
        return this.#drop(effect.keep)
      case 'hand_over':
        return { kind: 'handed_over' } // the coordinator has moved the wards before it said so
      case 'erase':
        return this.#erase()
      case 'forget':
        return { kind: 'forgotten' }
      case 'report':
        return this.#report(effect)
      default:
        return effect satisfies never
    }
  }

  #format(set: GuardianSet | undefined): LifeEvent {
    const { disk } = this
    if (disk.holdsData) this.world.fail(`${this.name} formats a vault in use`)
    if (disk.header === 'ours') return { kind: 'formatted' }
    disk.change('a new header', () => {
      disk.header = 'unfinished'
      disk.ways.clear()
    })
    disk.add(set === undefined ? { ...temporary } : wayOf(set))
    this.#temporaryKey ||= set === undefined
    disk.change('the header is finished', () => {
      disk.header = 'ours'
    })
    return { kind: 'formatted' }
  }

  #unlock(): LifeEvent {
    const way = [...this.disk.ways.values()].find((each) => this.#opens(each))
    // Until peers have proven that they can, the holders come with their key in the end.
    const alone = this.state.set === undefined
    if (way === undefined && !(alone && this.world.chance(0.2)))
      return { kind: 'failed', text: 'nothing opens it' }
    this.disk.change('opened', () => {
      this.disk.mapped = true
      if (way !== undefined) way.proven = true
      else this.disk.holdersProven = true
      // Whoever has the holders' key makes the temporary way anew (agent/src/temporary-pin.ts).
      this.#temporaryKey ||= alone
    })
    return way === undefined ? { kind: 'opened', by: 'operator' } : { kind: 'opened' }
  }

  /** Enough guardians answer, with the very keys that it was sealed to. */
  #opens({ epoch, threshold, guardians }: Way): boolean {
    if (epoch === 0) return this.#temporaryKey
    const answers = [...guardians].filter(([id, key]) => this.#asks(id, epoch, key))
    return answers.length >= threshold
  }

  #asks(id: string, epoch: number, key: string): boolean {
    const { partitions, peer } = this.around
    const guardian = peer(id)
    if (guardian === undefined || !guardian.on || !partitions.joins(this.name, id)) return false
    if (guardian.freeze.frozen.includes(this.name) || this.world.fault(0.03)) return false
    return guardian.state.enrolment !== undefined && guardian.keys.has(this.name, epoch, key)
  }

  #bind(set: GuardianSet): LifeEvent {
    // To make a keyslot takes a passphrase, so some way in has to open.
    if (![...this.disk.ways.values()].some((way) => this.#opens(way)))
      return { kind: 'failed', text: 'nothing opens it' }
    const found = this.disk.find(set.epoch)
    return { kind: 'bound', keyslot: found === undefined ? this.disk.add(wayOf(set)) : found[0] }
  }

  #prove({ keyslot, reopen }: LifeEffect & { kind: 'prove' }): LifeEvent {
    const way = this.disk.ways.get(keyslot)
    if (reopen) this.disk.mapped = false
    if (way === undefined || !this.#opens(way)) return { kind: 'failed', text: 'not proven' }
    this.disk.change(`opened by epoch ${way.epoch} alone`, () => {
      way.proven = true
      this.disk.mapped = true
    })
    return { kind: 'proven' }
  }

  #drop(keep: number): LifeEvent {
    for (const [keyslot, { epoch }] of [...this.disk.ways]) {
      if (keyslot === keep) continue
      if (this.disk.ways.get(keep)?.proven !== true)
        this.world.fail(`${this.name} drops epoch ${epoch} and nothing else is proven`)
      this.disk.remove(keyslot)
    }
    return { kind: 'dropped' }
  }

  #erase(): LifeEvent {
    if (!this.disk.endOrdered) this.world.fail(`${this.name} erases and nobody ordered it`)
    for (const keyslot of [...this.disk.ways.keys()]) this.disk.remove(keyslot)
    this.disk.holdsData = false
    return { kind: 'erased' }
  }

  /** Done when the coordinator has taken it in. */
  #report(effect: LifeEffect & { kind: 'report' }): undefined {
    const run = this.#run
    this.uplink.finish(effect, () => {
      if (run !== this.#run) return
      this.#running = ''
      // Nothing of worth is stored before the coordinator knows of the node.
      if (effect.what === 'enrolled') this.disk.holdsData = true
      this.take({ kind: 'reported' })
    })
  }
}

function reported(
  keyslot: number,
  purpose: 'automatic' | 'recovery',
  label: string,
  proven: boolean,
): Report['ways'][number] {
  return { keyslot, purpose, label, state: proven ? 'proven' : 'not_tried' }
}

const temporary: Way = { epoch: 0, threshold: 1, guardians: new Map(), proven: false }

function wayOf(set: GuardianSet): Way {
  const { epoch, threshold, guardians } = set
  const keys = new Map(guardians.map(({ node }) => [node, keyOf(set, node)]))
  return { epoch, threshold, guardians: keys, proven: false }
}

function nameOf(effect: LifeEffect): string {
  const { kind, set, keyslot, keep, id, what } = effect as Record<string, unknown> // of any effect
  const { epoch = '' } = (set ?? {}) as Partial<GuardianSet>
  return [kind, epoch, keyslot, keep, id, what].join(' ')
}

function named({ phase, task, set }: LifeState): string {
  const under = task === undefined ? '' : ` ${task.kind}:${task.step}`
  return `${phase}${under} epoch ${set?.epoch ?? 0}`
}
