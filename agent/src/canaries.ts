import { randomBytes } from 'node:crypto'
import { type BigIntStats, constants } from 'node:fs'
import { lstat, open, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { DurableRecord, ensureDirectory, removeDurable, writeDurable } from '@holdfast/base'
import { z } from 'zod'

// Canaries: files that nobody has any business with. One that is changed, replaced or removed is an
// incident, and so is one that is read, where the file system keeps access times: the access time is
// set back behind the change time, so that `relatime` (mount(8)) updates it at the next read; on a
// file system mounted `noatime` a read leaves no trace, and the first boot says so. They are looked
// at every few seconds; what happened while the agent was away is seen when it is back. A canary in
// a vault that is closed is out of sight, which is no incident.

export interface CanaryPlaces {
  /** The node's directory, always there. */
  node: string
  /** The mounted vault; undefined while it is closed. */
  vault: string | undefined
}

type PlaceName = keyof CanaryPlaces

const names: Readonly<Record<PlaceName, string>> = {
  node: 'backup/recovery-keys.pem',
  vault: 'backup/service-passwords.kdbx',
}

const markSchema = z.strictObject({
  inode: z.string(),
  size: z.string(),
  modified: z.string(),
  changed: z.string(),
  accessed: z.string(),
})
/** What a file's entry says, in nanoseconds where it is time: text, because it passes 2^53. */
export type Mark = z.infer<typeof markSchema>

const recordSchema = z.strictObject({
  v: z.literal(1),
  canaries: z.partialRecord(
    z.enum(['node', 'vault']),
    z.strictObject({
      mark: markSchema,
      /** Whether a read leaves a trace. */
      reads: z.boolean(),
      /** Its removal has been told. */
      gone: z.boolean(),
    }),
  ),
})
type Recorded = z.infer<typeof recordSchema>

export type Touch = 'read' | 'changed' | 'removed'

/** What has happened to a canary; undefined when nothing has. Pure. */
export function judge(known: Mark, seen: Mark | undefined): Touch | undefined {
  if (seen === undefined) return 'removed'
  const same = (['inode', 'size', 'modified', 'changed'] as const).every(
    (member) => known[member] === seen[member],
  )
  if (!same) return 'changed'
  return known.accessed === seen.accessed ? undefined : 'read'
}

export class Canaries {
  readonly #record: DurableRecord<Recorded>
  readonly #node: string
  readonly #onTouch: (touch: Touch, path: string) => Promise<void> | void

  constructor(directory: string, onTouch: (touch: Touch, path: string) => Promise<void> | void) {
    this.#node = directory
    this.#onTouch = onTouch
    this.#record = new DurableRecord(join(directory, 'canaries.json'), (value) =>
      recordSchema.parse(value),
    )
  }

  /** Tells every touch since the last look, once. It is told before it is written down as told. */
  async look(vault: string | undefined): Promise<void> {
    const record = await this.#read()
    for (const place of placesOf(vault)) {
      const known = record.canaries[place]
      if (known === undefined || known.gone) continue
      const path = this.#path(place, vault)
      const seen = await markOf(path)
      const touch = judge(known.mark, seen)
      if (touch === undefined) continue
      await this.#onTouch(touch, path)
      if (seen !== undefined && touch === 'read') await wind(path)
      const mark = (await markOf(path)) ?? known.mark
      record.canaries[place] = { ...known, mark, gone: touch === 'removed' }
      await this.#record.write(record)
    }
  }

  /** Whether every canary that can be there is. */
  async stand(vault: string | undefined): Promise<boolean> {
    const { canaries } = await this.#read()
    const found = placesOf(vault).map(async (place) => {
      const known = canaries[place]
      const seen = await markOf(this.#path(place, vault))
      return known !== undefined && !known.gone && seen?.inode === known.mark.inode
    })
    return (await Promise.all(found)).every(Boolean)
  }

  /** Makes those that are not there; with `renew` all of them anew. */
  async make(vault: string | undefined, renew: boolean): Promise<void> {
    for (const place of placesOf(vault)) {
      const record = await this.#read()
      const known = record.canaries[place]
      const path = this.#path(place, vault)
      const seen = await markOf(path)
      if (!renew && known !== undefined && !known.gone && seen?.inode === known.mark.inode) continue
      // Forgotten first: a kill between the new file and its record must not look like a touch.
      const { [place]: _, ...others } = record.canaries
      await this.#record.write({ v: 1, canaries: others })
      await ensureDirectory(dirname(path))
      await writeDurable(path, bait(path))
      const reads = await showsReads(dirname(path))
      await wind(path)
      const mark = await markOf(path)
      if (mark === undefined) throw new Error(`${path} has gone while it was made`)
      await this.#record.write({
        v: 1,
        canaries: { ...others, [place]: { mark, reads, gone: false } },
      })
    }
  }

  /** Which touches of which canaries are noticed, in words. */
  async describe(): Promise<string> {
    const { canaries } = await this.#read()
    const parts = Object.entries(canaries).map(
      ([place, { reads }]) =>
        `${place}: changes, removal${reads ? ' and reading' : '; not reading, as it keeps no access times'}`,
    )
    return parts.length === 0 ? 'there are none' : `noticed in ${parts.join('; in ')}`
  }

  #path(place: PlaceName, vault: string | undefined): string {
    return join(place === 'vault' ? (vault ?? '') : this.#node, names[place])
  }

  async #read(): Promise<Recorded> {
    return (await this.#record.read()) ?? { v: 1, canaries: {} }
  }
}

function placesOf(vault: string | undefined): readonly PlaceName[] {
  return vault === undefined ? ['node'] : ['node', 'vault']
}

async function markOf(path: string): Promise<Mark | undefined> {
  const found = await lstat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
    throw error
  })
  return found && marked(found)
}

function marked(found: BigIntStats): Mark {
  return {
    inode: `${found.ino}`,
    size: `${found.size}`,
    modified: `${found.mtimeNs}`,
    changed: `${found.ctimeNs}`,
    accessed: `${found.atimeNs}`,
  }
}

/** Sets the access time back a day, so that the next read moves it. */
async function wind(path: string): Promise<void> {
  const { mtimeMs } = await lstat(path)
  await utimes(path, mtimeMs / 1000 - 86_400, mtimeMs / 1000)
}

/** Whether reading a file in this directory moves its access time: tried with one. */
async function showsReads(directory: string): Promise<boolean> {
  const path = join(directory, `.${randomBytes(6).toString('hex')}`)
  await writeDurable(path, 'x')
  try {
    await wind(path)
    const before = await lstat(path, { bigint: true })
    const file = await open(path, constants.O_RDONLY)
    await file.read(Buffer.alloc(1))
    await file.close()
    return (await lstat(path, { bigint: true })).atimeNs !== before.atimeNs
  } finally {
    await removeDurable(path)
  }
}

/** Something worth stealing, as it seems. */
function bait(path: string): string {
  const lines =
    randomBytes(900)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  const label = basename(path).endsWith('.pem') ? 'ENCRYPTED PRIVATE KEY' : 'DATABASE'
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
