import { factoryState, type LifeState } from '@holdfast/agent'
import { type Machine, PowerCut } from './world.ts'

// What of a node outlives its power. Every change is durable before the next one, or absent; the power
// may go at any of them.

/** Both copies of the boot state: a write that is cut leaves the other copy. */
export class BootState {
  readonly #machine: Machine
  readonly #copies: { version: number; state: LifeState | undefined }[] = [
    { version: 1, state: factoryState },
    { version: 0, state: undefined },
  ]

  constructor(machine: Machine) {
    this.#machine = machine
  }

  save(state: LifeState): void {
    const { world } = this.#machine
    const [older, newer] = [...this.#copies].sort((a, b) => a.version - b.version)
    if (older === undefined || newer === undefined) throw new Error('there are two copies')
    const cut = world.fault(0.01)
    const fate = cut ? world.pick(['lost', 'torn', 'written'] as const) : 'written'
    if (fate === 'torn') older.state = undefined
    if (fate === 'written') {
      older.state = state
      older.version = newer.version + 1
    }
    if (cut) throw new PowerCut()
  }

  /** The newest copy that is whole. A torn one is older than it will ever be. */
  load(): LifeState {
    const whole = this.#copies.filter(({ state }) => state !== undefined)
    const newest = whole.sort((a, b) => b.version - a.version)[0]?.state
    if (newest === undefined)
      this.#machine.world.fail(`${this.#machine.name} has lost both copies of its boot state`)
    for (const copy of this.#copies) if (copy.state === undefined) copy.version = 0
    return newest
  }
}

/** A way into a vault that needs nobody's hands. */
export interface Way {
  /** 0 is the temporary way of the first node. */
  epoch: number
  threshold: number
  /** Guardian to the name of the very key that it made. */
  guardians: ReadonlyMap<string, string>
  /** Opened by this very keyslot since it was made. */
  proven: boolean
}

export class VaultDisk {
  header: 'nothing' | 'unfinished' | 'ours' = 'nothing'
  mapped = false
  /** Its node has called itself enrolled: services store things in it. */
  holdsData = false
  /** The holders have opened it with their own way in, keyslot 0. */
  holdersProven = false
  /** Somebody has ordered that it ends. */
  endOrdered = false
  readonly ways = new Map<number, Way>()
  readonly #machine: Machine
  readonly #check: () => void

  constructor(machine: Machine, check: () => void) {
    this.#machine = machine
    this.#check = check
  }

  /** One durable change. */
  change(what: string, change: () => void): void {
    this.#machine.mayDie()
    change()
    this.#machine.world.note(`${this.#machine.name}   disk: ${what}`)
    this.#check()
    this.#machine.mayDie()
  }

  find(epoch: number): [number, Way] | undefined {
    return [...this.ways].find(([, way]) => way.epoch === epoch)
  }

  /** The lowest free keyslot; 0 is the holders'. */
  add(way: Way): number {
    let keyslot = 1
    while (this.ways.has(keyslot)) keyslot += 1
    this.change(`a way in by epoch ${way.epoch}`, () => this.ways.set(keyslot, way))
    return keyslot
  }

  remove(keyslot: number): void {
    this.change(`no more keyslot ${keyslot}`, () => this.ways.delete(keyslot))
  }
}

/** What a guardian has for others. Making what is there gives the same. */
export class GuardedKeys {
  readonly #machine: Machine
  /** By ward and epoch; `undefined` says that the epoch is over. */
  readonly #keys = new Map<string, Map<number, string | undefined>>()
  #made = 0

  constructor(machine: Machine) {
    this.#machine = machine
  }

  has(ward: string, epoch: number, key: string): boolean {
    return this.#keys.get(ward)?.get(epoch) === key
  }

  /** The name of the key, or undefined when the epoch is over. */
  prepare(ward: string, epoch: number): string | undefined {
    const own = this.#keys.get(ward) ?? new Map<number, string | undefined>()
    if (own.has(epoch)) return own.get(epoch)
    this.#machine.mayDie()
    this.#made += 1
    const key = `${this.#machine.name}/${ward}/${epoch}/${this.#made}`
    this.#keys.set(ward, own.set(epoch, key))
    this.#machine.mayDie()
    return key
  }

  /** Ends an epoch and everything before it; says which epochs had keys. */
  retire(ward: string, epoch: number): number[] {
    this.#machine.mayDie()
    const own = this.#keys.get(ward) ?? new Map<number, string | undefined>()
    const ended = [...own].flatMap(([each, key]) =>
      each <= epoch && key !== undefined ? [each] : [],
    )
    this.#keys.set(ward, own.set(epoch, undefined))
    for (const each of ended) own.set(each, undefined)
    return ended
  }
}
