import { Agent } from 'node:https'
import { type Clock, defined, messageOf, parseJsonObject, readBounded } from '@holdfast/base'
import { exchange, nextWait, pinnedTls } from '@holdfast/link'
import { digestSchema } from '@holdfast/protocol'
import { z } from 'zod'
import { entriesAfter, newestEntry } from './audit.ts'
import { coordinatorFault } from './faults.ts'
import type { Store } from './store.ts'
import type { AuditTable } from './tables.ts'

// A second place for the audit log, on another machine. The log itself lies in the store, in the same
// transaction as what it tells of; this copies it, entry after entry, to an HTTP server. The store is
// the spool: a sink that hangs, refuses or is away holds up nobody, and gets everything once it is
// back. Every entry arrives at least once and in order; its sequence and hash tell a repetition.

/** Where the log goes; read from a file, because it may hold a credential. */
export interface SinkPlace {
  /** `https://…`, or `http://…` on the same machine. Takes POST of lines of JSON; 2xx means taken. */
  url: string
  /** Value of the Authorization header. */
  authorization?: string | undefined
  /** The server's pinned identity; without it the system's certificate authorities decide. */
  identity?: string | undefined
}

const placeSchema = z.strictObject({
  url: z.url({ protocol: /^https?$/ }),
  authorization: z.string().max(4096).optional(),
  identity: digestSchema.optional(),
})

/** Reads `{"url", "authorization"?, "identity"?}`. @throws Fault coordinator.sink_invalid */
export async function readSinkFile(path: string): Promise<SinkPlace> {
  const text = (await readBounded(path, 65_536)).toString('utf8')
  const parsed = placeSchema.safeParse(parseJsonObject(text, path))
  if (parsed.success) return parsed.data
  throw coordinatorFault(
    'coordinator.sink_invalid',
    `${path} does not say where the audit log goes: ${z.prettifyError(parsed.error)}`,
    {
      hint: 'it is JSON with "url", and "authorization" or "identity" where the server wants them',
    },
  )
}

export interface ExportOptions {
  store: Store
  clock: Clock
  place: SinkPlace
  /** Milliseconds that one request may take. Default 10 000. */
  patience?: number
  /** Milliseconds between looks for new entries, and the first wait after a failure. Default 1 000. */
  interval?: number
}

export interface AuditExport extends AsyncDisposable {
  /** What the status must say about the sink, if anything. */
  alarm(): Promise<string | undefined>
}

const entriesAtOnce = 200
const longestWait = 60_000

/** Copies the log until disposed. */
export function startAuditExport(options: ExportOptions): AuditExport {
  const { clock, interval = 1_000, store } = options
  const stop = new AbortController()
  const name = nameOf(options.place)
  let failure: string | undefined
  const loop = async () => {
    const tls = tlsOf(options.place)
    let wait = 0
    while (!stop.signal.aborted) {
      try {
        await copy(options, name, tls, stop.signal)
        failure = undefined
        wait = interval
      } catch (error) {
        failure = messageOf(error)
        wait = nextWait(wait, { base: interval, most: longestWait }, Math.random)
      }
      await clock.sleep(wait, stop.signal).catch(() => undefined)
    }
    tls?.destroy()
  }
  const running = loop()
  return {
    alarm: async () => {
      if (failure === undefined) return undefined
      const behind = (await newestEntry(store.read)) - (await positionOf(store, name))
      return `the audit sink ${name} takes nothing, ${behind} entries wait in the store: ${failure}`
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await running
    },
  }
}

/** Without credentials, query and fragment: it stands in the store and in the status. */
function nameOf({ url }: SinkPlace): string {
  const { origin, pathname } = new URL(url)
  return `${origin}${pathname}`
}

function tlsOf({ url, identity }: SinkPlace): Agent | undefined {
  if (!url.startsWith('https:')) return undefined
  return identity === undefined ? new Agent({ keepAlive: true }) : pinnedTls(identity)
}

/** Sends everything that the sink does not have yet. */
async function copy(
  options: ExportOptions,
  name: string,
  tls: Agent | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { store } = options
  let lines: AuditTable[] = []
  for await (const entry of entriesAfter(store.read, await positionOf(store, name))) {
    lines.push(entry)
    if (lines.length < entriesAtOnce) continue
    await send(options, name, lines, tls, signal)
    lines = []
  }
  if (lines.length > 0) await send(options, name, lines, tls, signal)
}

async function send(
  { store, place, patience = 10_000 }: ExportOptions,
  name: string,
  entries: readonly AuditTable[],
  tls: Agent | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { status } = await exchange(place.url, {
    method: 'POST',
    body: entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''),
    contentType: 'application/x-ndjson',
    headers: defined({ authorization: place.authorization }),
    timeout: patience,
    limit: 65_536,
    signal,
    ...defined({ tls }),
  })
  if (status < 200 || status > 299) throw new Error(`it answers with status ${status}`)
  const position = entries.at(-1)?.sequence ?? 0
  await store.write((work) =>
    work
      .insertInto('sinks')
      .values({ name, position })
      .onConflict((conflict) =>
        conflict
          .column('name')
          .doUpdateSet({ position })
          // Another instance may have sent more meanwhile.
          .where('sinks.position', '<', position),
      )
      .execute(),
  )
}

async function positionOf({ read }: Store, name: string): Promise<number> {
  const row = await read
    .selectFrom('sinks')
    .select('position')
    .where('name', '=', name)
    .executeTakeFirst()
  return row?.position ?? 0
}
