import type { KeyObject } from 'node:crypto'
import type { Clock } from '@holdfast/base'
import type { NodeReport } from '@holdfast/protocol/frames'
import { noteProgress, type Told } from './commands.ts'
import { guardiansOf, reportColumns } from './nodes.ts'
import { publishPeers } from './nodes-documents.ts'
import type { Store, Work } from './store.ts'

// What agents say all the time, written down in batches: a heartbeat costs no write at all, a report
// one row in the next batch. What must not be lost (results, enrolments) does not come through here.

interface Change {
  report?: NodeReport
  /** The phase to store instead of the reported one: `enrolling` while that is under way. */
  phase?: NodeReport['phase']
  /** The highest proven generation that the node has seen. */
  witnessed?: number
}

/** With the number of the session that it was said in. */
type Said = Change & { session: number }

type Waiting = Told & { node: string; command: string }

export interface LedgerOptions {
  store: Store
  clock: Clock
  /** This instance's name, as it stands beside the nodes it holds. */
  instance: string
  isHeld(node: string): boolean
  /** Signs lists of peers; undefined while sealed. */
  signer(): Promise<{ key: KeyObject; cluster: string } | undefined>
}

const batch = 200
/** Characters of output and progress of one node that may wait in memory. */
const waitingEach = 256 * 1024
/** What one entry takes besides its text. */
const entryCost = 512
/**
 * Changes of its guardians that one node may report at once, and milliseconds until one more: each has
 * lists signed for all whom it names, and a node that lies could name others in every report.
 */
const movesAtOnce = 10
const moveEvery = 30_000

export class AgentLedger {
  readonly #options: LedgerOptions
  readonly #changes = new Map<string, Said>()
  /** By node and command: what a node says of another's command must not stand in its way. */
  readonly #told = new Map<string, Waiting>()
  readonly #waiting = new Map<string, number>()
  /** Per node, its moves that are left, and since when. */
  readonly #moves = new Map<string, { left: number; at: number }>()
  #flushing: Promise<void> = Promise.resolve()

  constructor(options: LedgerOptions) {
    this.#options = options
  }

  /** The node has come, gone, or said something about itself, in the session of this number. */
  note(node: string, session: number, change: Change = {}): void {
    const said = { ...change, session }
    const before = this.#changes.get(node)
    this.#changes.set(node, before === undefined ? said : together(before, said))
  }

  /** Progress or output of a command; resolves when more may come. */
  async tell(node: string, command: string, told: Partial<Told>): Promise<void> {
    const name = `${node} ${command}`
    const before = this.#told.get(name)
    const output = (before?.output ?? '') + (told.output ?? '')
    this.#told.set(name, { ...before, ...told, node, command, output })
    const cost = (told.output ?? '').length + (before === undefined ? entryCost : 0)
    const waiting = (this.#waiting.get(node) ?? 0) + cost
    this.#waiting.set(node, waiting)
    if (waiting > waitingEach) await this.flush()
  }

  /** Writes everything noted so far; what could not be written stays for the next time. */
  async flush(): Promise<void> {
    const next = this.#flushing.then(() => this.#write())
    this.#flushing = next.catch(() => undefined)
    await next
  }

  async #write(): Promise<void> {
    const { clock } = this.#options
    const told = take(this.#told)
    this.#waiting.clear()
    const changes = take(this.#changes)
    try {
      while (told.length > 0) {
        const part = told.slice(0, batch)
        await this.#options.store.write(async (work) => {
          for (const [, { node, command, ...each }] of part)
            await noteProgress(work, node, command, each)
        })
        told.splice(0, part.length)
      }
      while (changes.length > 0) {
        const { part, moves, early } = await this.#movedGuardians(changes.slice(0, batch))
        // Reading the key is written down and takes a commit, so only who signs something asks for it.
        const signer = moves.size === 0 ? undefined : await this.#options.signer()
        const accepted = await this.#options.store.write(async (work) => {
          const written = await this.#writeChanges(work, part)
          const moved = [...moves].filter(([node]) => written.has(node))
          const affected = new Set(moved.flatMap(([, nodes]) => nodes))
          if (signer !== undefined && affected.size > 0)
            await publishPeers(work, { ...signer, now: clock.now() }, affected)
          return moved
        })
        // What could not be written is said again, and must not have used its moves up by then.
        for (const [node] of accepted) this.#countMove(node)
        changes.splice(0, part.length)
        for (const [node, said] of early) this.#putAside(node, said)
      }
    } finally {
      for (const [name, each] of told) this.#putBack(name, each)
      // What came meanwhile is newer and wins.
      for (const [node, each] of changes) this.#putAside(node, each)
    }
  }

  #putAside(node: string, said: Said): void {
    const newer = this.#changes.get(node)
    this.#changes.set(node, newer === undefined ? said : together(said, newer))
  }

  #putBack(name: string, each: Waiting): void {
    const newer = this.#told.get(name)
    this.#told.set(name, { ...each, ...newer, output: each.output + (newer?.output ?? '') })
  }

  /**
   * Gives the nodes of which something was written: what was said in an earlier session than the latest,
   * wherever that is, changes nothing.
   */
  async #writeChanges(work: Work, part: readonly [string, Said][]): Promise<Set<string>> {
    const { instance, isHeld, clock } = this.#options
    const written = new Set<string>()
    for (const [node, { session, report, phase, witnessed }] of part) {
      const row = {
        ...(report === undefined ? {} : reportColumns(report)),
        ...(phase === undefined ? {} : { phase }),
        ...(witnessed === undefined ? {} : { witnessed }),
        ...(isHeld(node) ? { instance, heard_at: clock.now() } : { instance: null }),
      }
      const { numUpdatedRows } = await work
        .updateTable('nodes')
        .set(row)
        .where('node', '=', node)
        .where('session', '=', session)
        .executeTakeFirst()
      if (numUpdatedRows > 0n) written.add(node)
    }
    return written
  }

  /**
   * Who has other guardians now, each with everybody whose list of peers changes by that, and what is to
   * be written; the reports of those who move too often are not, and wait.
   */
  async #movedGuardians(changes: readonly [string, Said][]) {
    const reports = new Map(changes)
    const rows = await this.#options.store.read
      .selectFrom('nodes')
      .select(['node', 'guardians', 'session'])
      .where('node', 'in', [...reports.keys()])
      .execute()
    const moves = new Map<string, readonly string[]>()
    const early = new Map<string, Said>()
    for (const row of rows) {
      const { report, session = 0 } = reports.get(row.node) ?? {}
      const before = guardiansOf(row)
      if (report === undefined || session !== row.session) continue
      if (JSON.stringify(report.guardians) === JSON.stringify(before)) continue
      if (this.#movesLeft(row.node).left > 0)
        moves.set(row.node, [row.node, ...before, ...report.guardians])
      else early.set(row.node, { report, session })
    }
    const part = changes.map(([node, { report, ...rest }]): [string, Said] => [
      node,
      report === undefined || early.has(node) ? rest : { ...rest, report },
    ])
    return { part, moves, early }
  }

  /** The moves that a node has left now, and since when. */
  #movesLeft(node: string): { left: number; at: number } {
    const now = this.#options.clock.now()
    const { left, at } = this.#moves.get(node) ?? { left: movesAtOnce, at: now }
    // A clock that was set back gives one more, and begins anew.
    const fresh = now < at ? 1 : Math.floor((now - at) / moveEvery)
    const have = Math.min(movesAtOnce, left + fresh)
    return { left: have, at: now < at || have === movesAtOnce ? now : at + fresh * moveEvery }
  }

  #countMove(node: string): void {
    const { left, at } = this.#movesLeft(node)
    this.#moves.set(node, { left: Math.max(0, left - 1), at })
  }
}

function take<T>(map: Map<string, T>): [string, T][] {
  const entries = [...map]
  map.clear()
  return entries
}

/** Of what was said in two sessions, the later one counts; in one, what was said last. */
function together(before: Said, after: Said): Said {
  if (before.session === after.session) return { ...before, ...after }
  return before.session > after.session ? before : after
}
