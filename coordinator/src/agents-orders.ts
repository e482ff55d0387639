import type { KeyObject } from 'node:crypto'
import { type Clock, isFault } from '@holdfast/base'
import type { CommandFrame } from '@holdfast/link'
import { newestIssue } from './command-issues.ts'
import {
  frameOf,
  markDelivered,
  type OpenCommand,
  openCommands,
  orderedSince,
} from './commands-delivery.ts'
import { latestSessions } from './session-numbers.ts'
import type { Store } from './store.ts'
import { Together } from './together.ts'

// The orders that people give to the agents of this instance. All commands of a fleet are numbered in
// one sequence (command-issues.ts), so a look asks for its highest number and reads on only when that
// has risen, whoever gave the order and whichever instance took it. A node whose session begins is
// asked for once, because it is told again of everything that has no result yet.

export interface OrdersOptions {
  store: Store
  clock: Clock
  /** The command key; undefined while the coordinator is sealed, which orders nothing. */
  signer: () => Promise<{ key: KeyObject; cluster: string } | undefined>
  /** Sends to an agent of this instance. @throws Fault link.session_closed, node.not_connected */
  deliver: (node: string, frame: CommandFrame) => Promise<void>
  onError: (error: unknown) => void
}

interface Session {
  readonly number: number
  readonly commands: Set<string>
}

/** Nodes that one question names: an engine takes only so many values. */
const askedAtOnce = 500

export class Orders {
  readonly #options: OrdersOptions
  readonly #together: Together
  /** By node, its session's number and what was sent in it; the nodes are those of this instance. */
  readonly #sent = new Map<string, Session>()
  /** Nodes of this instance that may have something to be told. */
  readonly #due = new Set<string>()
  /** The number up to which everything has been looked at. */
  #looked = 0
  #next: Promise<void> | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: OrdersOptions) {
    this.#options = options
    this.#together = new Together(options.store)
  }

  /** The node's session has begun: it is told everything that is open. */
  begin(node: string, number: number): void {
    this.#sent.set(node, { number, commands: new Set() })
    this.#due.add(node)
  }

  /** The node's session has ended. */
  forget(node: string): void {
    this.#sent.delete(node)
    this.#due.delete(node)
  }

  /** The result is here. */
  answered(node: string, command: string): void {
    this.#sent.get(node)?.commands.delete(command)
  }

  /**
   * Tells the agents of this instance what is new to them; resolves after a look that began after this
   * call. Those who call meanwhile share the next look, and one reading of the key, which is written down.
   */
  async send(): Promise<void> {
    this.#next ??= this.#begin()
    await this.#next
  }

  #begin(): Promise<void> {
    const look = this.#last.then(async () => {
      this.#next = undefined
      await this.#find()
      await this.#tell()
    })
    this.#last = look.catch(() => undefined)
    return look
  }

  async #find(): Promise<void> {
    const { read } = this.#options.store
    const newest = await newestIssue(read)
    if (newest === this.#looked) return
    // Lower than before: this is the store of an earlier time, of which nothing is known.
    const all = newest < this.#looked
    const nodes = all ? [...this.#sent.keys()] : await orderedSince(read, this.#looked)
    for (const node of nodes) if (this.#sent.has(node)) this.#due.add(node)
    this.#looked = newest
  }

  async #tell(): Promise<void> {
    const nodes = [...this.#due]
    this.#due.clear()
    try {
      const fresh: OpenCommand[] = []
      for (let start = 0; start < nodes.length; start += askedAtOnce)
        fresh.push(...(await this.#unsent(nodes.slice(start, start + askedAtOnce))))
      // Most nodes that come have nothing to do: then nobody reads the key.
      if (fresh.length === 0) return
      const signer = await this.#options.signer()
      if (signer === undefined) return this.#again(fresh.map(({ node }) => node))
      for (const row of fresh) this.#deliver(row, signer)
    } catch (error) {
      this.#again(nodes)
      throw error
    }
  }

  /** What has not been sent to these; a node that has a later session elsewhere is told there. */
  async #unsent(nodes: readonly string[]): Promise<OpenCommand[]> {
    const { store, clock } = this.#options
    const open = await openCommands(store.read, clock.now(), nodes)
    const fresh = open.filter(({ id, node }) => this.#sent.get(node)?.commands.has(id) === false)
    if (fresh.length === 0) return []
    const latest = await latestSessions(store.read, [...new Set(fresh.map(({ node }) => node))])
    return fresh.filter(({ node }) => this.#sent.get(node)?.number === latest.get(node))
  }

  /** At the next look once more. */
  #again(nodes: Iterable<string>): void {
    for (const node of nodes) if (this.#sent.has(node)) this.#due.add(node)
  }

  #deliver(row: OpenCommand, { key, cluster }: { key: KeyObject; cluster: string }): void {
    const { id, node } = row
    const session = this.#sent.get(node)
    if (session === undefined || session.commands.has(id)) return
    session.commands.add(id)
    const { deliver, onError } = this.#options
    const told = async () => {
      const frame = frameOf(row, key, { cluster, node })
      try {
        await deliver(node, frame)
      } catch (error) {
        session.commands.delete(id) // the agent does not have it
        if (this.#sent.get(node) === session) this.#again([node])
        throw error
      }
      await this.#together.add((work) => markDelivered(work, row, session.number))
    }
    told().catch((error: unknown) => {
      // An agent that went away while it was told something is nothing to report.
      const away = isFault(error, 'link.session_closed') || isFault(error, 'node.not_connected')
      if (!away) onError(error)
    })
  }
}
