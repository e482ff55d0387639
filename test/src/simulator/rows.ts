import type { GuardianSet } from '@holdfast/agent'
import type {
  Cause,
  CommandState,
  EnrolmentState,
  ReshareState,
} from '@holdfast/coordinator/decisions'
import type { NodePhase } from '@holdfast/protocol'
import type { SimulatedCommand } from './messages.ts'
import type { Machine } from './world.ts'

// The coordinator's tables, as far as its decisions read them. A transaction is complete or absent,
// however it ends.

export interface NodeRow {
  node: string
  domain: string
  phase: NodePhase
  frozen: boolean
  epoch: number
  threshold: number
  guardians: string[]
  /** The instance that held its session when this was written. */
  instance: string | undefined
  /** When that instance last wrote that it has a session. */
  heardAt: number
  genesis: boolean
}

export interface EnrolmentRow {
  node: string
  state: EnrolmentState
  genesis: boolean
  expires: number
}

export interface ReshareRow {
  id: string
  ward: string
  cause: Cause
  state: ReshareState
  epoch: number
  threshold: number
  guardians: string[]
  since: number
  blamed: string[]
  order?: GuardianSet
  code?: string
  message?: string
}

export interface WardKeyRow {
  ward: string
  epoch: number
  guardian: string
  state: 'asked' | 'made' | 'refused' | 'retiring'
  errand: string
  key?: string
  code?: string
}

export interface CommandRow {
  id: string
  node: string
  command: SimulatedCommand
  state: CommandState
  expires: number
}

/** Milliseconds without a word after which a node counts as not connected. */
const silence = 100_000

/** What is stored, for every instance. */
export class Store {
  readonly nodes = new Map<string, NodeRow>()
  readonly enrolments: EnrolmentRow[] = []
  reshares: ReshareRow[] = []
  wardKeys: WardKeyRow[] = []
  readonly commands = new Map<string, CommandRow>()
  freezeVersion = 0
  ids = 0
}

/** The store as one instance has it: its power may go around every write. */
export class Tables {
  readonly #store: Store
  readonly #machine: Machine

  constructor(machine: Machine, store: Store) {
    this.#machine = machine
    this.#store = store
  }

  get nodes(): Map<string, NodeRow> {
    return this.#store.nodes
  }

  get enrolments(): EnrolmentRow[] {
    return this.#store.enrolments
  }

  get commands(): Map<string, CommandRow> {
    return this.#store.commands
  }

  get reshares(): ReshareRow[] {
    return this.#store.reshares
  }

  set reshares(rows: ReshareRow[]) {
    this.#store.reshares = rows
  }

  get wardKeys(): WardKeyRow[] {
    return this.#store.wardKeys
  }

  set wardKeys(rows: WardKeyRow[]) {
    this.#store.wardKeys = rows
  }

  get freezeVersion(): number {
    return this.#store.freezeVersion
  }

  set freezeVersion(version: number) {
    this.#store.freezeVersion = version
  }

  id(kind: string): string {
    this.#store.ids += 1
    return `${kind}-${this.#store.ids}`
  }

  /** Some instance has a session with it, as far as the tables know. */
  isConnected({ instance, heardAt }: NodeRow): boolean {
    return instance !== undefined && this.#machine.world.now - heardAt < silence
  }

  /** The power goes before it, so that nothing is written, or after it, so that nobody is told. */
  write<T>(change: () => T): T {
    this.#machine.mayDie(0.002)
    const result = change()
    this.#machine.mayDie(0.002)
    return result
  }

  /** Says that a ward's keys are to be destroyed, each under an id of its own. */
  retire(keys: Iterable<WardKeyRow>): void {
    for (const row of keys) {
      if (row.state === 'retiring') continue
      row.state = 'retiring'
      row.errand = this.id('errand')
      delete row.key
      delete row.code
    }
  }

  /** It has been told to leave, or will be once its wards have moved. */
  isLeaving(id: string): boolean {
    const open = ['preparing', 'waiting', 'sent', 'running']
    const rows = [...this.commands.values()]
    return rows.some(
      ({ node, command, state }) => node === id && command === 'leave' && open.includes(state),
    )
  }

  /** Nodes that will be wiped, or leave, when they hear of it. */
  toEnd(): string[] {
    const rows = [...this.commands.values()].filter(
      ({ command }) => command === 'reset' || command === 'leave',
    )
    return rows.flatMap(({ node, state }) =>
      state === 'done' || state === 'failed' || state === 'expired' ? [] : [node],
    )
  }

  keysOf(ward: string): WardKeyRow[] {
    return this.wardKeys.filter((row) => row.ward === ward)
  }

  /** As coordinator/src/ward-keys.ts: what the set in use has at its guardians is known. */
  noteSet({ node, epoch, guardians }: NodeRow): void {
    for (const guardian of guardians) {
      const known = this.keysOf(node).some(
        (row) => row.epoch === epoch && row.guardian === guardian,
      )
      if (known) continue
      const errand = this.id('errand')
      this.wardKeys.push({ ward: node, epoch, guardian, state: 'made', errand })
    }
  }
}
