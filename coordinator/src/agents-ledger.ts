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
/** Characters of a command's output that may wait in memory. */
const outputWaiting = 256 * 1024

export class AgentLedger {
  readonly #options: LedgerOptions
  readonly #changes = new Map<string, Change>()
  readonly #told = new Map<string, Told & { node: string }>()
  #flushing: Promise<void> = Promise.resolve()

  constructor(options: LedgerOptions) {
    this.#options = options
  }

  /** The node has come, gone, or said something about itself. */
  note(node: string, change: Change = {}): void {
    this.#changes.set(node, { ...this.#changes.get(node), ...change })
  }

  /** Progress or output of a command; resolves when more may come. */
  async tell(node: string, command: string, told: Partial<Told>): Promise<void> {
    const before = this.#told.get(command) ?? { node, output: '' }
    const output = before.output + (told.output ?? '')
    this.#told.set(command, { ...before, ...told, output })
    if (output.length > outputWaiting) await this.flush()
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
    const changes = take(this.#changes)
    try {
      while (told.length > 0) {
        const part = told.slice(0, batch)
        await this.#options.store.write(async (work) => {
          for (const [id, { node, ...each }] of part) await noteProgress(work, node, id, each)
        })
        told.splice(0, part.length)
      }
      while (changes.length > 0) {
        const part = changes.slice(0, batch)
        const moved = await this.#movedGuardians(part)
        // Reading the key is written down and takes a commit, so only who signs something asks for it.
        const signer = moved.size === 0 ? undefined : await this.#options.signer()
        await this.#options.store.write(async (work) => {
          await this.#writeChanges(work, part)
          if (signer !== undefined) await publishPeers(work, { ...signer, now: clock.now() }, moved)
        })
        changes.splice(0, part.length)
      }
    } finally {
      for (const [id, each] of told) this.#putBack(id, each)
      // What came meanwhile is newer and wins.
      for (const [node, each] of changes) this.note(node, { ...each, ...this.#changes.get(node) })
    }
  }

  #putBack(id: string, each: Told & { node: string }): void {
    const newer = this.#told.get(id)
    this.#told.set(id, { ...each, ...newer, output: each.output + (newer?.output ?? '') })
  }

  async #writeChanges(work: Work, part: readonly [string, Change][]): Promise<void> {
    const { instance, isHeld, clock } = this.#options
    for (const [node, { report, phase, witnessed }] of part) {
      const columns = {
        ...(report === undefined ? {} : reportColumns(report)),
        ...(phase === undefined ? {} : { phase }),
        ...(witnessed === undefined ? {} : { witnessed }),
      }
      const held = isHeld(node)
      const row = held ? { ...columns, instance, heard_at: clock.now() } : columns
      if (Object.keys(row).length > 0)
        await work.updateTable('nodes').set(row).where('node', '=', node).execute()
      if (held) continue
      // Another instance may hold it by now: only our own claim is taken back.
      const gone = work.updateTable('nodes').set({ instance: null }).where('node', '=', node)
      await gone.where('instance', '=', instance).execute()
    }
  }

  /** Everybody whose list of peers changes because somebody's guardians have. */
  async #movedGuardians(part: readonly [string, Change][]): Promise<Set<string>> {
    const reports = new Map(part.map(([node, { report }]) => [node, report]))
    const rows = await this.#options.store.read
      .selectFrom('nodes')
      .select(['node', 'guardians'])
      .where('node', 'in', [...reports.keys()])
      .execute()
    const moved = new Set<string>()
    for (const row of rows) {
      const now = reports.get(row.node)?.guardians
      const before = guardiansOf(row)
      if (now === undefined || JSON.stringify(now) === JSON.stringify(before)) continue
      for (const node of [row.node, ...before, ...now]) moved.add(node)
    }
    return moved
  }
}

function take<T>(map: Map<string, T>): [string, T][] {
  const entries = [...map]
  map.clear()
  return entries
}
