import { step as lifeStep, type Step } from './life.ts'
import type { LifeEffect, LifeEvent } from './life-event.ts'
import { factoryState, type GuardianSet, type LifeState } from './life-state.ts'
import { type Disk, SimulatedDisk } from './simulator-disk.ts'

// Drives the real reducer through a life of faults: power cuts between any two changes of the disk,
// guardians that go and come, reports that get lost, orders that come twice. Time, power, disk and
// people are simulated; every choice comes from the seed, so a failing seed fails again.

export interface SimulationOptions {
  seed: number
  /** Turns of chaos before the world calms down. */
  turns?: number
  /** The reducer; tests give broken ones to see that they are caught. */
  step?: (state: LifeState, event: LifeEvent) => Step
}

export interface SimulationResult {
  state: LifeState
  disk: Disk
  /** Milliseconds of virtual time. */
  elapsed: number
  powerCuts: number
  effects: number
  /** What has happened to it: `held`, `released`, `forgotten`, `restored`, `adopted`. */
  milestones: ReadonlySet<string>
}

/** A broken rule, with the seed that breaks it and what happened until then. */
export class SimulationFailure extends Error {
  override readonly name = 'SimulationFailure'
  readonly seed: number
  readonly trace: readonly string[]

  constructor(seed: number, rule: string, trace: readonly string[]) {
    super(`seed ${seed}: ${rule}\n${trace.slice(-40).join('\n')}`)
    this.seed = seed
    this.trace = trace
  }
}

/** Lives one life. @throws SimulationFailure */
export function simulate(options: SimulationOptions): SimulationResult {
  return new Simulation(options).run()
}

/** Numbers in [0, 1) from a seed: mulberry32, a public-domain generator. */
export function seededRandom(seed: number): () => number {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

class PowerCut extends Error {}

class Simulation {
  readonly #seed: number
  readonly #turns: number
  readonly #step: NonNullable<SimulationOptions['step']>
  readonly #random: () => number
  readonly #trace: string[] = []
  readonly #disk: SimulatedDisk
  /** The boot state: what a power cut leaves. */
  #state: LifeState = factoryState
  #calm = false
  #now = 0
  #powerCuts = 0
  #effects = 0
  readonly #milestones = new Set<string>()
  /** What the coordinator wants of this node, until it has heard that it is done. */
  #wanted: { set?: GuardianSet; end?: LifeEvent & { kind: 'leave' | 'wipe' | 'panic' } } = {}
  /** After panic 2 the holders may decide to bring the data back. */
  #holdersCome = false

  constructor({ seed, turns = 60, step = lifeStep }: SimulationOptions) {
    this.#seed = seed
    this.#turns = turns
    this.#step = step
    this.#random = seededRandom(seed)
    const occupied = this.#chance(0.05)
    this.#disk = new SimulatedDisk(occupied, {
      fail: (rule) => this.#fail(rule),
      change: (what) => this.#change(what),
      random: this.#random,
    })
  }

  run(): SimulationResult {
    for (let turn = 0; turn < this.#turns; turn += 1) this.#turn()
    this.#calm = true
    this.#disk.guardiansUp = true
    for (let turn = 0; turn < 120; turn += 1) this.#turn()
    this.#checkEnd()
    const { disk } = this.#disk
    return {
      state: this.#state,
      disk,
      elapsed: this.#now,
      powerCuts: this.#powerCuts,
      effects: this.#effects,
      milestones: this.#milestones,
    }
  }

  #turn(): void {
    this.#now += Math.floor(this.#random() * 60_000)
    if (!this.#calm) this.#disk.guardiansUp = this.#chance(0.6)
    try {
      if (!this.#calm && this.#chance(0.05)) throw new PowerCut()
      this.#tell(this.#message())
      if (this.#chance(0.8)) this.#act()
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error
      this.#powerCuts += 1
      this.#trace.push(`${this.#now} power cut`)
      this.#disk.powerCut()
      this.#take({ kind: 'started', open: false })
    }
  }

  /** What comes from outside in this turn. */
  #message(): LifeEvent | undefined {
    const { phase, enrolment } = this.#state
    if (phase === 'factory' && enrolment === undefined) return this.#newMachine()
    if (phase === 'rescue' && this.#chance(0.3)) return { kind: 'started', open: false }
    if (this.#needsOperator() && this.#chance(0.3)) return this.#push()
    if (this.#calm) return this.#order()
    const dice = this.#random()
    if (dice < 0.3) return this.#order()
    if (dice < 0.35) return { kind: 'wrong_key' }
    if (dice < 0.37) this.#wanted.end ??= { kind: 'leave', command: `leave-${this.#now}` }
    if (dice > 0.37 && dice < 0.4) this.#panic()
    if (dice > 0.99) this.#wanted.end = { kind: 'wipe', command: `wipe-${this.#now}` }
    if (dice > 0.85) this.#wanted.set = guardianSet((this.#wanted.set?.epoch ?? 0) + 1)
    return undefined
  }

  /** A machine that nobody has enrolled, with whatever is on its disk. */
  #newMachine(): LifeEvent | undefined {
    if (this.#holdersCome && this.#chance(0.4)) {
      if (this.#disk.restoreHeader()) this.#milestones.add('restored')
      this.#holdersCome = false
    }
    return this.#enrolment()
  }

  /** Panic only ever gets harder. */
  #panic(): void {
    const before = this.#wanted.end?.kind === 'panic' ? this.#wanted.end.level : 0
    const level = ([1, 1, 2, 3] as const)[Math.floor(this.#random() * 4)] ?? 1
    if (level > before)
      this.#wanted.end = { kind: 'panic', level, command: `panic-${level}-${this.#now}` }
  }

  #needsOperator(): boolean {
    const { held, task, phase } = this.#state
    if (task?.kind === 'enrol' && task.step === 'adopt') return true
    const shut = task === undefined || task.kind === 'reshare'
    return held !== undefined && phase === 'locked' && shut
  }

  #push(): LifeEvent {
    const adopt = this.#state.task?.kind === 'enrol'
    const event = this.#disk.push(adopt)
    this.#milestones.add(adopt ? 'adopted' : 'released')
    return event
  }

  #enrolment(): LifeEvent {
    const genesis = this.#chance(0.5)
    this.#wanted.set ??= guardianSet(1)
    return {
      kind: 'accepted',
      enrolment: {
        cluster: 'c'.repeat(22),
        name: 'node',
        certificate: '',
        authority: '',
        coordinators: ['https://192.0.2.1:8443'],
        coordinatorIdentity: 'i'.repeat(43),
        commandKey: '',
        address: '10.88.0.2/16',
        genesis,
      },
    }
  }

  /** The coordinator says again what it has not heard to be done. */
  #order(): LifeEvent | undefined {
    const { set, end } = this.#wanted
    if (end !== undefined && (set === undefined || this.#chance(0.5))) return end
    return set === undefined ? undefined : { kind: 'ordered', set }
  }

  #tell(event: LifeEvent | undefined): void {
    if (event === undefined) return
    const ends = event.kind === 'wipe' || event.kind === 'leave'
    this.#disk.endOrdered ||= ends || (event.kind === 'panic' && event.level > 1)
    this.#take(event)
  }

  /** Lets the reducer decide and remembers what is due; the new state is durable before that. */
  #take(event: LifeEvent): void {
    const { state, effects } = this.#step(this.#state, event)
    if (state.phase === 'open' && this.#state.phase !== 'open' && !this.#disk.disk.mapped)
      this.#fail('it calls itself open and the vault is closed')
    if (state !== this.#state) this.#trace.push(`${this.#now} ${event.kind} -> ${named(state)}`)
    this.#checkHeld(event, state)
    this.#state = state
    if (effects.length > 1) this.#fail('more than one thing is to be done')
    if (effects[0] !== undefined) this.#due = effects[0]
  }

  /** What panic 1 has shut, only an operator opens; nothing else takes the mark away. */
  #checkHeld(event: LifeEvent, next: LifeState): void {
    if (this.#state.held === undefined) {
      if (next.held !== undefined) this.#milestones.add('held')
      return
    }
    const freed = event.kind === 'opened' && event.by === 'operator'
    const destroyed = next.phase === 'left' || next.phase === 'wiped'
    if (next.held === undefined && !freed && !destroyed) this.#fail('it forgot that it is held')
    const opens = next.phase === 'open' && this.#state.phase !== 'open'
    if (opens && !freed) this.#fail('it is held and opened by itself')
  }

  #due: LifeEffect | undefined

  #act(): void {
    // After a power cut what is due is derived from the state; otherwise it was remembered.
    const effect = this.#due
    if (effect === undefined) return
    this.#effects += 1
    this.#trace.push(`${this.#now} does ${effect.kind}`)
    const event = this.#perform(effect)
    this.#due = undefined
    this.#take(event)
  }

  #perform(effect: LifeEffect): LifeEvent {
    if (!this.#calm && this.#chance(0.1)) return { kind: 'failed', text: effect.kind }
    switch (effect.kind) {
      case 'open_port':
        return { kind: 'failed', text: 'nobody has come' }
      case 'report':
        return this.#report(effect)
      case 'forget':
        return this.#forget()
      case 'hand_over':
        if (this.#chance(0.5)) return { kind: 'handed_over' }
        delete this.#wanted.end
        return { kind: 'handover_refused', text: 'below the margin' }
      default:
        return this.#disk.perform(effect, this.#state)
    }
  }

  #report({ what, id }: LifeEffect & { kind: 'report' }): LifeEvent {
    if (what === 'enrolled') this.#disk.requireProven()
    if (this.#wanted.end?.command === id) delete this.#wanted.end
    if ((what === 'left' || what === 'wiped') && this.#disk.disk.slots.size > 0)
      this.#fail(`it calls itself ${what} and keyslots remain`)
    if (this.#wanted.set?.id === id) delete this.#wanted.set
    // The coordinator has heard it; whether the node hears that it has is another matter.
    return this.#calm || this.#chance(0.7)
      ? { kind: 'reported' }
      : { kind: 'failed', text: 'no acknowledgement' }
  }

  #forget(): LifeEvent {
    if (this.#wanted.end !== undefined && this.#wanted.end.kind === 'panic')
      this.#trace.push(`${this.#now} a harder order comes too late`)
    this.#disk.forgetIdentity()
    this.#wanted = {}
    this.#milestones.add('forgotten')
    this.#holdersCome = this.#chance(0.7)
    return { kind: 'forgotten' }
  }

  #change(what: string): void {
    this.#trace.push(`${this.#now}   disk: ${what}`)
    if (!this.#calm && this.#chance(0.04)) throw new PowerCut()
  }

  #chance(probability: number): boolean {
    return this.#random() < probability
  }

  #fail(rule: string): never {
    throw new SimulationFailure(this.#seed, rule, this.#trace)
  }

  /** However it came about, the end is the same. */
  #checkEnd(): void {
    const { phase, task, set } = this.#state
    if (phase === 'wiped' || phase === 'left') {
      if (this.#disk.disk.slots.size > 0) this.#fail(`it is ${phase} and keyslots remain`)
      return
    }
    const { header } = this.#disk.disk
    if (header === 'occupied' || header === 'wiped') {
      if (phase !== 'rescue' && phase !== 'factory' && phase !== 'enrolling')
        this.#fail(`a disk that is not its own ends in ${phase}`)
      return
    }
    if (phase !== 'open' || task !== undefined)
      this.#fail(`it does not settle: ${named(this.#state)}`)
    const automatic = [...this.#disk.disk.slots.values()].filter(({ way }) => way !== 'recovery')
    const wanted = set === undefined ? 'temporary' : `epoch ${set.epoch}`
    if (automatic.map(({ way }) => way).join() !== wanted)
      this.#fail(`its ways are ${automatic.map(({ way }) => way).join()} and not ${wanted}`)
  }
}

function guardianSet(epoch: number): GuardianSet {
  return { id: `order-${epoch}`, epoch, threshold: 3, guardians: [] }
}

function named({ phase, task, set }: LifeState): string {
  const under = task === undefined ? '' : ` ${task.kind}:${task.step}`
  return `${phase}${under} epoch ${set?.epoch ?? 0}`
}
