import type { LifeEffect, LifeEvent } from './life-event.ts'
import type { LifeState } from './life-state.ts'

// A disk as far as a node's life can tell: its header, its ways in, whether it is open. Every change
// is announced before the next one, and the world may cut the power there.

export interface SimulatedSlot {
  /** `recovery`, `temporary` or `epoch N`. */
  way: string
  /** Opened by this very keyslot since it was made. */
  proven: boolean
}

export interface Disk {
  /** `wiped`: by panic 2, the data and the holders' sealed header are still there. */
  header: 'nothing' | 'unfinished' | 'ours' | 'occupied' | 'wiped' | 'restored'
  slots: Map<number, SimulatedSlot>
  mapped: boolean
  /** A node that called itself enrolled has been told to store things. */
  holdsData: boolean
}

interface World {
  fail(rule: string): never
  change(what: string): void
  random(): number
}

export type DiskEffect = Exclude<
  LifeEffect,
  { kind: 'report' | 'hand_over' | 'open_port' | 'forget' }
>

export class SimulatedDisk {
  readonly disk: Disk
  guardiansUp = true
  /** Somebody has ordered that this vault ends. */
  endOrdered = false
  readonly #world: World
  /** The temporary way's key lives in memory. */
  #temporaryKey = false
  #closedAfterFormat = false
  #reopened = false
  /** What the holders' sealed backup of the header has. */
  #backup: Map<number, SimulatedSlot> | undefined
  /** The level of the wipe in the vault's journal. */
  #begun = 0

  constructor(occupied: boolean, world: World) {
    this.#world = world
    const header = occupied ? 'occupied' : 'nothing'
    this.disk = { header, slots: new Map(), mapped: false, holdsData: false }
  }

  powerCut(): void {
    this.disk.mapped = false
    this.#temporaryKey = false
  }

  /** A node may call itself enrolled only when its vault has been closed and opened again. */
  requireProven(): void {
    if (!this.#reopened) this.#world.fail('enrolled before a proven close and reopen')
    this.disk.holdsData = true
  }

  perform(effect: DiskEffect, state: LifeState): LifeEvent {
    switch (effect.kind) {
      case 'probe':
        return this.#probe()
      case 'format':
        return this.#format(effect, state)
      case 'close':
      case 'lock':
        this.#set('closed', () => {
          this.disk.mapped = false
          this.#closedAfterFormat = this.disk.header === 'ours'
        })
        return { kind: 'closed' }
      case 'unlock':
        if (state.held !== undefined) this.#world.fail('a held vault was opened by itself')
        return this.#unlock()
      case 'bind':
        return this.#bind(effect.set.epoch)
      case 'prove':
        return this.#prove(effect)
      case 'drop':
        return this.#drop(effect.keep)
      case 'erase':
        return this.#erase(effect.level)
      default:
        return effect satisfies never
    }
  }

  #format(effect: LifeEffect & { kind: 'format' }, state: LifeState): LifeEvent {
    const { header, holdsData } = this.disk
    if (header === 'occupied') this.#world.fail('a foreign disk was formatted')
    if (header === 'wiped' || header === 'restored')
      this.#world.fail('data that the holders can bring back was formatted over')
    if (header === 'ours' || holdsData) {
      // The executor finds its own finished vault and leaves it alone.
      if (state.phase !== 'enrolling') this.#world.fail('a vault in use was formatted')
      return { kind: 'formatted' }
    }
    this.#set('header', () => {
      this.disk.header = 'unfinished'
      this.disk.slots.clear()
      this.disk.slots.set(0, { way: 'recovery', proven: true })
    })
    const way = effect.set === undefined ? 'temporary' : `epoch ${effect.set.epoch}`
    this.#set(`way in: ${way}`, () => {
      this.disk.slots.set(1, { way, proven: false })
      this.#temporaryKey ||= way === 'temporary'
    })
    this.#set('finished', () => {
      this.disk.header = 'ours'
    })
    return { kind: 'formatted' }
  }

  #opens({ way }: SimulatedSlot): boolean {
    // People push a key instead; and what was sealed for an identity that has gone stays shut.
    if (way === 'recovery' || way.startsWith('old ')) return false
    return way === 'temporary' ? this.#temporaryKey : this.guardiansUp
  }

  #unlock(): LifeEvent {
    const slots = [...this.disk.slots.values()]
    const found = slots.find((slot) => this.#opens(slot))
    const pushed = slots.length > 0 && this.#world.random() < 0.3
    if (found === undefined && !pushed) return { kind: 'failed', text: 'nothing opens' }
    if (found !== undefined) found.proven = true
    this.#set('opened', () => {
      this.disk.mapped = true
      this.#reopened ||= this.#closedAfterFormat
    })
    return { kind: 'opened' }
  }

  #bind(epoch: number): LifeEvent {
    const way = `epoch ${epoch}`
    for (const [keyslot, slot] of this.disk.slots) {
      if (slot.way === way) return { kind: 'bound', keyslot }
    }
    if (!this.guardiansUp) return { kind: 'failed', text: 'no guardians' }
    let keyslot = 0
    while (this.disk.slots.has(keyslot)) keyslot += 1
    this.#set(`way in: ${way}`, () => this.disk.slots.set(keyslot, { way, proven: false }))
    return { kind: 'bound', keyslot }
  }

  #prove({ keyslot, reopen }: LifeEffect & { kind: 'prove' }): LifeEvent {
    if (reopen) {
      this.#set('closed', () => {
        this.disk.mapped = false
      })
    }
    const slot = this.disk.slots.get(keyslot)
    if (slot === undefined || !this.#opens(slot)) return { kind: 'failed', text: 'not proven' }
    this.#set('opened by it alone', () => {
      slot.proven = true
      this.disk.mapped = true
    })
    return { kind: 'proven' }
  }

  #drop(keep: number): LifeEvent {
    if (this.disk.slots.get(keep)?.proven !== true)
      this.#world.fail('old ways were dropped before the new one was proven')
    for (const [keyslot, { way }] of [...this.disk.slots]) {
      if (keyslot === keep || way === 'recovery') continue
      this.#set(`no more ${way}`, () => this.disk.slots.delete(keyslot))
    }
    return { kind: 'dropped' }
  }

  #erase(ordered: 1 | 2 | 3): LifeEvent {
    const { disk } = this
    // What an earlier order has begun is finished first: a softer one cannot take it back.
    const level = Math.max(this.#begun, ordered)
    this.#begun = level
    if (!this.endOrdered) this.#world.fail('keyslots were destroyed and nobody ordered it')
    if (disk.header === 'occupied') this.#world.fail('a foreign disk was erased')
    if (level === 2 && disk.slots.size > 0)
      this.#backup ??= new Map([...disk.slots].map(([keyslot, slot]) => [keyslot, { ...slot }]))
    for (const keyslot of [...disk.slots.keys()])
      this.#set(`keyslot ${keyslot} destroyed`, () => disk.slots.delete(keyslot))
    if (level === 3)
      this.#set('header backups destroyed', () => {
        this.#backup = undefined
      })
    this.#set('header destroyed', () => {
      disk.header = this.#backup === undefined ? 'nothing' : 'wiped'
      this.#begun = 0
    })
    return { kind: 'erased' }
  }

  /** The identity has gone: nothing that was sealed for it opens any more. */
  forgetIdentity(): void {
    if (this.disk.slots.size > 0) this.#world.fail('the identity went before the keyslots')
    this.endOrdered = false
    this.#temporaryKey = false
    this.#closedAfterFormat = false
    this.#reopened = false
    this.disk.holdsData = false
  }

  /** The holders bring back the header that panic 2 destroyed; true when there is one. */
  restoreHeader(): boolean {
    if (this.disk.header !== 'wiped' || this.#backup === undefined) return false
    const slots = [...this.#backup].map(([keyslot, { way, proven }]) => {
      const old = way === 'recovery' ? { way, proven } : { way: `old ${way}`, proven: false }
      return [keyslot, old] as const
    })
    this.#set('header restored', () => {
      this.disk.slots = new Map(slots)
      this.disk.header = 'restored'
      this.disk.holdsData = true
    })
    return true
  }

  /** An operator's key: it opens, and where no way is this identity's it makes the temporary one. */
  push(adopt: boolean): LifeEvent {
    if (adopt) {
      const found = [...this.disk.slots].find(([, { way }]) => way === 'temporary')
      let keyslot = found?.[0] ?? 0
      while (found === undefined && this.disk.slots.has(keyslot)) keyslot += 1
      this.#set('temporary way', () => {
        this.disk.slots.set(keyslot, { way: 'temporary', proven: true })
        this.#temporaryKey = true
      })
    }
    this.#set('opened by an operator', () => {
      this.disk.mapped = true
      this.#reopened = true
    })
    return { kind: 'opened', by: 'operator' }
  }

  #probe(): LifeEvent {
    const { header } = this.disk
    return { kind: 'probed', found: header === 'wiped' ? 'occupied' : header, text: 'a header' }
  }

  #set(what: string, change: () => void): void {
    change()
    const ways = [...this.disk.slots.values()]
    if (this.disk.holdsData && !this.endOrdered && !ways.some(({ proven }) => proven))
      this.#world.fail(`no proven way in is left after: ${what}`)
    this.#world.change(what)
  }
}
