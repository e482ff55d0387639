import { enrolmentStateOf, nextEnrolmentState } from '@holdfast/coordinator/decisions'
import { CoordinatorDuties, type Decisions } from './duties.ts'
import type { Instruction, Report, SimulatedCommand, ToCoordinator, Told } from './messages.ts'
import type { End } from './network.ts'
import type { SimulatedNode } from './node.ts'
import { type EnrolmentRow, type NodeRow, type Store, Tables } from './rows.ts'
import type { CoordinatorSession } from './uplink.ts'
import { Machine, type World } from './world.ts'

// One instance of the coordinator: its real decisions, over tables in memory instead of SQL, which all
// instances have together. What coordinator/src does
// around them (agents*.ts, reshares.ts, reshare-moves.ts, departures.ts) is done here in few words:
// reports are written in batches, sessions are in memory, everything else is in the tables.

interface Held {
  session: CoordinatorSession
  /** What was sent in this session, and when. */
  sent: Map<string, number>
}

const minute = 60_000
const enrolmentPatience = 30 * minute
const repeatAfter = 15_000

export class SimulatedCoordinator extends Machine {
  readonly tables: Tables
  readonly #duties: CoordinatorDuties
  readonly #nextCommandState: Decisions['nextCommandState']
  readonly #held = new Map<string, Held>()
  /** Also those of which no hello has come. */
  readonly #sessions = new Set<CoordinatorSession>()
  /** Reports that are not written down yet; lost with the power. */
  readonly #heard = new Map<string, Report | undefined>()
  #looking = false
  /** The freeze list that the nodes of this instance were last told. */
  #freezeSent = 0

  constructor(world: World, name: string, store: Store, decisions: Decisions) {
    super(world, name)
    this.#nextCommandState = decisions.nextCommandState
    this.tables = new Tables(this, store)
    this.#duties = new CoordinatorDuties(this, decisions)
  }

  /** Begins to look, now and from time to time. */
  start(): void {
    const often = () => {
      this.look()
      this.after(60_000, often)
    }
    this.after(100, often)
  }

  protected override onDark(): void {
    for (const session of this.#sessions) session.break()
    this.#sessions.clear()
    this.#held.clear()
    this.#heard.clear()
    this.#looking = false
  }

  protected override onWake(): void {
    // What this instance held before it does not hold any more.
    for (const row of this.tables.nodes.values())
      if (row.instance === this.name) row.instance = undefined
    this.#duties.since = this.world.now
    this.start()
  }

  /** A node connects; what it says comes in later. */
  open(node: SimulatedNode, session: CoordinatorSession): End<ToCoordinator> {
    const { name } = node
    this.#sessions.add(session)
    return {
      receive: (message) => {
        if (this.on) this.attempt(() => this.#receive(name, session, message))
      },
      closed: () => {
        this.#sessions.delete(session)
        if (this.#held.get(name)?.session !== session) return
        this.#held.delete(name)
        this.#note(name)
      },
    }
  }

  /** Records a new node and what it is to be told once it has answered at its port. */
  enrol(node: string, domain: string, genesis: boolean): void {
    this.tables.write(() => {
      const expires = this.world.now + enrolmentPatience
      this.tables.enrolments.push({ node, state: 'sent', genesis, expires })
      this.tables.nodes.set(node, {
        ...{ node, domain, genesis },
        ...{ phase: 'enrolling', frozen: false, epoch: 0, threshold: 0, guardians: [] },
        ...{ instance: undefined, heardAt: 0 },
      })
    })
  }

  /** Somebody orders something; undefined when it is refused. */
  order(node: string, command: SimulatedCommand): string | undefined {
    const { tables, world } = this
    if (tables.nodes.get(node)?.phase !== 'open') return undefined
    if (command === 'leave' || command === 'reboot')
      if (!this.#duties.mayGo(node, command)) return undefined
    const id = tables.id(command)
    const patience = command === 'act' || command === 'reboot' ? 10 * minute : 24 * 60 * minute
    const state = command === 'leave' ? 'preparing' : 'waiting'
    tables.write(() => {
      const expires = world.now + patience
      tables.commands.set(id, { id, node, command, state, expires })
    })
    world.note(`${this.name} orders ${id} for ${node}`)
    this.kick()
    return id
  }

  freeze(node: string, frozen: boolean): void {
    const { tables } = this
    const row = tables.nodes.get(node)
    if (row === undefined || row.frozen === frozen) return
    tables.write(() => {
      row.frozen = frozen
      tables.freezeVersion += 1
    })
    this.world.note(`${this.name} ${frozen ? 'freezes' : 'unfreezes'} ${node}`)
    this.kick()
  }

  /** Forgets a node that will not come back; refused where a ward could not open without it. */
  remove(node: string): boolean {
    const { tables } = this
    const living = (id: string) => {
      const row = id === node ? undefined : tables.nodes.get(id)
      return row !== undefined && tables.isConnected(row)
    }
    const inNeed = [...tables.nodes.values()].some(
      (ward) =>
        ward.guardians.includes(node) &&
        !tables.isLeaving(ward.node) &&
        ward.guardians.filter(living).length < ward.threshold,
    )
    if (inNeed) return false
    return tables.write(() => {
      this.#duties.endKeys(node)
      tables.wardKeys = tables.wardKeys.filter(({ guardian }) => guardian !== node)
      return tables.nodes.delete(node)
    })
  }

  kick(): void {
    if (this.#looking || !this.on) return
    this.#looking = true
    this.after(this.world.between(100, 2_000), () => this.look())
  }

  /** One round: what was heard is written down, what is due is decided, what is new is sent. */
  look(): void {
    this.#looking = false
    this.#flush()
    const changed = this.#duties.round()
    this.#send()
    if (changed > 0) this.kick()
  }

  holds(node: string): boolean {
    return this.#held.has(node)
  }

  #note(node: string, report?: Report): void {
    this.#heard.set(node, report ?? this.#heard.get(node))
    this.kick()
  }

  #flush(): void {
    const heard = [...this.#heard]
    const { now } = this.world
    this.#heard.clear()
    this.tables.write(() => {
      for (const [node, report] of heard) {
        const row = this.tables.nodes.get(node)
        if (row === undefined) continue
        if (report !== undefined) this.#write(row, report)
        // Another instance may hold it by now: only our own claim is taken back.
        if (this.#held.has(node)) Object.assign(row, { instance: this.name, heardAt: now })
        else if (row.instance === this.name) row.instance = undefined
      }
      for (const [node, { session }] of this.#held) this.#writeHeard(node, session)
    })
  }

  /** As coordinator/src/agents.ts `writeHeard` and `#lost`. */
  #writeHeard(node: string, session: CoordinatorSession): void {
    const row = this.tables.nodes.get(node)
    if (row === undefined) return
    // Given up by mistake: it is claimed again.
    row.instance ??= this.name
    if (row.instance === this.name) row.heardAt = this.world.now
    else session.break() // that one has a later session
  }

  #write(row: NodeRow, report: Report): void {
    const { node } = row
    const { phase, epoch, threshold, guardians } = report
    const still = this.#enrolmentOf(node) !== undefined
    Object.assign(row, { epoch, threshold, guardians, phase: still ? 'enrolling' : phase })
  }

  /** As coordinator/src/enrolments.ts `followEnrolment`: durable before the report is acknowledged. */
  #follow(node: string, report: Report): void {
    const under = this.#enrolmentOf(node)
    if (under === undefined) return
    this.tables.write(() => {
      under.state = nextEnrolmentState(under.state, enrolmentStateOf(report))
      under.expires = this.world.now + enrolmentPatience
      if (under.state === 'failed') this.#duties.forgetNode(node)
    })
  }

  #enrolmentOf(node: string): EnrolmentRow | undefined {
    return this.tables.enrolments.find((each) => each.node === node && isUnderWay(each.state))
  }

  #receive(node: string, session: CoordinatorSession, { message, number }: ToCoordinator): void {
    if (message.kind === 'hello') {
      this.#greet(node, session, message.report)
      return
    }
    if (this.#held.get(node)?.session !== session) return
    this.#take(node, message)
    if (number !== undefined) session.down({ ack: number })
  }

  #greet(node: string, session: CoordinatorSession, report: Report): void {
    const row = this.tables.nodes.get(node)
    const ended = row?.phase === 'left' || row?.phase === 'wiped'
    if (row === undefined || (ended && !this.#owesResult(node))) {
      session.down({ refused: row?.phase ?? 'unknown' })
      return
    }
    this.#held.get(node)?.session.break()
    const held: Held = { session, sent: new Map() }
    this.#held.set(node, held)
    session.down({ welcome: true })
    this.#sendFreeze(held)
    this.#follow(node, report)
    this.#note(node, report)
  }

  /** As coordinator/src/agents-admission.ts: its report may have come when its receipt had not. */
  #owesResult(node: string): boolean {
    const open = ['waiting', 'sent', 'running']
    const rows = [...this.tables.commands.values()]
    return rows.some((row) => row.node === node && open.includes(row.state))
  }

  #take(node: string, told: Exclude<Told, { kind: 'hello' }>): void {
    const { tables, world } = this
    if (told.kind === 'report') {
      this.#follow(node, told.report)
      this.#note(node, told.report)
      return
    }
    if (told.kind === 'ward-key') tables.write(() => this.#duties.keepKey(node, told))
    else {
      this.#flush() // a result follows the report that it belongs to
      const row = tables.commands.get(told.id)
      if (row === undefined) tables.write(() => this.#duties.noteAnswer(node, told))
      else if (row.node === node)
        tables.write(() => {
          row.state = this.#nextCommandState(row.state, told.ok ? 'succeeded' : 'failed')
          world.note(`coordinator: ${row.id} is ${row.state}`)
        })
    }
    this.kick()
  }

  #send(): void {
    const { tables, world } = this
    if (tables.freezeVersion !== this.#freezeSent) {
      this.#freezeSent = tables.freezeVersion
      for (const held of this.#held.values()) this.#sendFreeze(held)
    }
    for (const { node, instruction } of this.#duties.errands()) {
      const held = this.#held.get(node)
      if (held === undefined || tables.nodes.get(node)?.instance !== this.name) continue
      const name = nameOf(instruction)
      if (world.now - (held.sent.get(name) ?? Number.NEGATIVE_INFINITY) < repeatAfter) continue
      held.sent.set(name, world.now)
      held.session.down({ message: instruction })
    }
    for (const row of tables.commands.values()) {
      const held = this.#held.get(row.node)
      const isOpen = row.state === 'waiting' || row.state === 'sent' || row.state === 'running'
      if (held === undefined || !isOpen || row.expires <= world.now || held.sent.has(row.id))
        continue
      held.sent.set(row.id, world.now)
      held.session.down({ message: { kind: 'command', id: row.id, command: row.command } })
      tables.write(() => {
        row.state = this.#nextCommandState(row.state, 'delivered')
      })
    }
  }

  #sendFreeze({ session }: Held): void {
    const { nodes, freezeVersion: version } = this.tables
    const frozen = [...nodes.values()].filter((row) => row.frozen).map(({ node }) => node)
    session.down({ message: { kind: 'freeze', version, frozen } })
  }
}

export function isUnderWay(state: string): boolean {
  return state !== 'enrolled' && state !== 'failed'
}

function nameOf(instruction: Instruction): string {
  if (instruction.kind === 'ward') return instruction.id
  return instruction.kind === 'reshare' ? instruction.set.id : instruction.kind
}
