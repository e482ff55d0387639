import type { LifeEffect } from '@holdfast/agent'
import type { Instruction, SimulatedCommand, ToCoordinator, Told, ToNode } from './messages.ts'
import { type End, Session } from './network.ts'
import type { SimulatedNode } from './node.ts'

// A node's end of its session, as link/src/session.ts and agent/src/membership.ts have it: what must not
// be lost is kept until a coordinator has acknowledged it and sent again in every session, ids of
// commands are remembered for ever, and wards' keys are made and destroyed on order.

/** A coordinator as nodes reach it. */
export interface UplinkTarget {
  readonly name: string
  readonly on: boolean
  /** The coordinator's end of a session. */
  open(node: SimulatedNode, session: CoordinatorSession): End<ToCoordinator>
}

export type CoordinatorSession = Session<ToCoordinator, ToNode>

interface CommandRecord {
  ended: boolean
  ok: boolean
}

export class Uplink {
  readonly #node: SimulatedNode
  /** Durable: what was begun is never begun again. */
  readonly #commands = new Map<string, CommandRecord>()
  /** How often each command was acted on; nobody but the simulation knows. */
  readonly acted = new Map<string, number>()
  #outbox = new Map<number, { message: Told; done: (() => void) | undefined }>()
  #number = 0
  #session: CoordinatorSession | undefined
  #connecting = false
  /** Nothing is told before the coordinator has said that it listens. */
  #welcomed = false
  /** Which of the instances it tries next. */
  #turn: number

  constructor(node: SimulatedNode) {
    this.#node = node
    this.#turn = node.world.between(0, 100) // agents begin at different instances
  }

  goDark(): void {
    this.#outbox.clear()
    this.#session?.break()
    this.#session = undefined
    this.#connecting = false
  }

  connect(): void {
    if (this.#session?.isOpen === true || this.#connecting) return
    this.#connecting = true
    this.#node.after(this.#node.world.between(500, 15_000), () => {
      this.#connecting = false
      this.#tryOnce()
    })
  }

  #tryOnce(): void {
    const { world, around, name, state } = this.#node
    const { coordinators, partitions, nextCoordinator } = around
    if (state.enrolment === undefined) return
    const coordinator = coordinators[this.#turn % coordinators.length]
    if (coordinator === undefined) return
    if (!coordinator.on || !partitions.joins(name, coordinator.name)) {
      this.#turn = nextCoordinator(this.#turn)
      this.connect()
      return
    }
    const far: { end?: End<ToCoordinator> } = {}
    const session: CoordinatorSession = new Session<ToCoordinator, ToNode>(
      world,
      { receive: (message) => far.end?.receive(message), closed: () => far.end?.closed() },
      {
        receive: (message) => this.#receive(session, message),
        closed: () => this.#closed(session),
      },
    )
    far.end = coordinator.open(this.#node, session)
    this.#session = session
    this.#welcomed = false
    session.up({ message: { kind: 'hello', report: this.#node.report } })
  }

  #closed(session: CoordinatorSession): void {
    if (this.#session !== session) return
    this.#session = undefined
    if (this.#node.on) this.#node.attempt(() => this.connect())
  }

  /** The node's report, kept until it was taken in. */
  report(): void {
    this.#deliver({ kind: 'report', report: this.#node.report })
  }

  /** Tells of the end of a step; `done` when the coordinator has it. */
  finish({ what, id }: LifeEffect & { kind: 'report' }, done: () => void): void {
    const report = { kind: 'report', report: this.#node.report } as const
    if (id === '') this.#deliver(report, done)
    else if (what === 'left' || what === 'wiped') {
      this.#record(id, { ended: true, ok: true })
      this.#deliver({ kind: 'result', id, ok: true })
      this.#deliver(report, done)
    } else {
      this.#deliver(report)
      this.#deliver({ kind: 'result', id, ok: true }, done)
    }
  }

  #deliver(message: Told, done?: () => void): void {
    this.#number += 1
    this.#outbox.set(this.#number, { message, done })
    if (this.#welcomed) this.#session?.up({ message, number: this.#number })
  }

  #receive(session: CoordinatorSession, message: ToNode): void {
    if (session !== this.#session || !this.#node.on) return
    this.#node.attempt(() => {
      if ('welcome' in message) {
        this.#welcomed = true
        for (const [number, { message: kept }] of this.#outbox)
          session.up({ message: kept, number })
      } else if ('ack' in message) {
        const { done } = this.#outbox.get(message.ack) ?? {}
        this.#outbox.delete(message.ack)
        done?.()
      } else if ('refused' in message) {
        session.break()
      } else this.#act(message.message)
    })
  }

  #act(instruction: Instruction): void {
    const node = this.#node
    if (instruction.kind === 'ward') this.#ward(instruction)
    else if (instruction.kind === 'command') this.#command(instruction.id, instruction.command)
    else if (instruction.kind === 'reshare') node.take({ kind: 'ordered', set: instruction.set })
    else if (instruction.version > node.freeze.version) node.freeze = instruction
  }

  #ward({ action, ward, epoch, id }: Instruction & { kind: 'ward' }): void {
    const { keys, around, name } = this.#node
    if (action === 'retire') {
      for (const each of keys.retire(ward, epoch)) around.retired(name, ward, each)
      this.#deliver({ kind: 'result', id, ok: true })
      return
    }
    const key = keys.prepare(ward, epoch)
    if (key === undefined) {
      this.#deliver({ kind: 'result', id, ok: false, code: 'agent.ward_stale' })
      return
    }
    this.#deliver({ kind: 'ward-key', ward, epoch, key })
    this.#deliver({ kind: 'result', id, ok: true })
  }

  #command(id: string, command: SimulatedCommand): void {
    const known = this.#commands.get(id)
    if (known?.ended === true) {
      this.#deliver({ kind: 'result', id, ok: known.ok })
      return
    }
    if (command === 'leave' || command === 'reset') {
      this.#end(id, command)
      return
    }
    if (known !== undefined) {
      // Begun before a restart: nobody knows how far it came, so it is not begun again.
      this.#record(id, { ended: true, ok: false })
      this.#deliver({ kind: 'result', id, ok: false, code: 'agent.interrupted' })
      return
    }
    this.#record(id, { ended: false, ok: false })
    this.acted.set(id, (this.acted.get(id) ?? 0) + 1)
    this.#node.mayDie(0.03)
    this.#record(id, { ended: true, ok: true })
    this.#deliver({ kind: 'result', id, ok: true })
    if (command === 'reboot') this.#node.after(2_000, () => this.#node.goDark())
  }

  /** The life itself remembers these; their result comes when the vault is destroyed. */
  #end(id: string, command: 'leave' | 'reset'): void {
    const node = this.#node
    const { task } = node.state
    if ((task?.kind === 'leave' || task?.kind === 'wipe') && task.command === id) return
    const before = node.disk.endOrdered
    node.disk.endOrdered = true
    const kind = command === 'leave' ? 'leave' : 'wipe'
    if (node.take({ kind, command: id })) return
    node.disk.endOrdered = before
    this.#record(id, { ended: true, ok: false })
    this.#deliver({ kind: 'result', id, ok: false, code: 'agent.busy' })
  }

  #record(id: string, record: CommandRecord): void {
    this.#node.mayDie()
    this.#commands.set(id, record)
    this.#node.mayDie()
  }
}
