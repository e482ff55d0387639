import { chmod, stat, unlink } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createConnection } from 'node:net'
import { dirname } from 'node:path'
import { ensureDirectory, isFault, othersMayReplace, parseJson } from '@holdfast/base'
import type { Log } from '@holdfast/base/log'
import { curveNames } from '@holdfast/crypto'
import { z } from 'zod'
import type { Administration } from './administration.ts'
import { keyserverFault } from './faults.ts'
import { packFault } from './messages.ts'

// Administration over a Unix socket: POST /NAME with a JSON object, answered by JSON; faults come as
// 4xx or 5xx with the fault as body. Who may connect is decided by the file system alone: the socket
// is 0600 and its folder must not be writable by others.

const bodyLimit = 1024 * 1024
const curve = z.enum(curveNames)
const none = z.strictObject({})
const rotation = z.strictObject({
  uses: z.array(z.enum(['signing', 'exchange'])).optional(),
  curve: curve.optional(),
  prefix: z.string().optional(),
})
const retirement = z.strictObject({
  kids: z.array(z.string()).optional(),
  unusedDays: z.number().min(0).optional(),
  needed: z.array(z.string()).optional(),
  force: z.boolean().optional(),
  dryRun: z.boolean().optional(),
})
const prefixAddition = z.strictObject({ name: z.string(), curve: curve.optional() })
const prefixName = z.strictObject({ name: z.string() })
const compromise = z.strictObject({ kids: z.array(z.string()).min(1), note: z.string() })
const holding = z.strictObject({ reason: z.string().min(1) })

/** Absent members instead of undefined ones, which is what the options' types mean. */
type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> }

function defined<T extends object>(value: T): Defined<T> {
  const entries = Object.entries(value).filter(([, member]) => member !== undefined)
  return Object.fromEntries(entries) as Defined<T> // the same object without its undefined members
}

type Call = (administration: Administration, body: unknown) => Promise<unknown>

function plain<T>(body: unknown, action: () => Promise<T>): Promise<T> {
  none.parse(body)
  return action()
}

const calls: Readonly<Record<string, Call>> = {
  status: (to, body) => plain(body, () => to.status()),
  list: (to, body) => plain(body, () => to.list()),
  reload: (to, body) => plain(body, () => to.reload()),
  release: (to, body) => plain(body, () => to.release()),
  rotate: (to, body) => to.rotate(defined(rotation.parse(body))),
  retire: (to, body) => to.retire(defined(retirement.parse(body))),
  'add-prefix': (to, body) => {
    const { name, ...options } = prefixAddition.parse(body)
    return to.addPrefix(name, defined(options))
  },
  'revoke-prefix': (to, body) => to.revokePrefix(prefixName.parse(body).name),
  'mark-compromised': (to, body) => {
    const { kids, note } = compromise.parse(body)
    return to.markCompromised(kids, note)
  },
  hold: (to, body) => to.hold(holding.parse(body).reason),
}

/**
 * Listens on a Unix socket, replacing one that nobody answers on.
 * @throws Fault keyserver.listen_failed, keyserver.permissions_loose
 */
export async function startAdmin(
  path: string,
  administration: Administration,
  log: Log,
): Promise<AsyncDisposable> {
  await ensureDirectory(dirname(path))
  await requirePrivateFolder(dirname(path))
  if (await answers(path)) {
    throw keyserverFault('keyserver.listen_failed', `another server administers on ${path}`, {
      hint: 'stop it first, or choose another --admin socket',
    })
  }
  await unlink(path).catch(() => undefined)
  const server = createServer((request, response) => {
    answer(administration, request, response, log).catch(() => response.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const text = `cannot listen on ${path}: ${cause.message}`
      reject(keyserverFault('keyserver.listen_failed', text, { cause }))
    })
    server.listen(path, resolve)
  })
  await chmod(path, 0o600)
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

async function requirePrivateFolder(folder: string): Promise<void> {
  const found = await stat(folder)
  const isOwn = !othersMayReplace(found, process.getuid?.() ?? 0)
  if (isOwn && (found.mode & 0o022) === 0) return
  throw keyserverFault(
    'keyserver.permissions_loose',
    `refusing to administer in ${folder}: others own it or may write it`,
    { hint: `choose a folder of your own, or chmod go-w '${folder}'` },
  )
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

async function answer(
  administration: Administration,
  request: IncomingMessage,
  response: ServerResponse,
  log: Log,
): Promise<void> {
  const name = (request.url ?? '').slice(1)
  const call = Object.hasOwn(calls, name) ? calls[name] : undefined
  const send = (status: number, value: unknown) => {
    response.writeHead(status, { 'Content-Type': 'application/json' })
    response.end(`${JSON.stringify(value ?? {})}\n`)
  }
  if (call === undefined || request.method !== 'POST') {
    const text = `there is no administration call ${request.method} /${name}`
    return send(404, packFault(keyserverFault('keyserver.admin_invalid', text)))
  }
  try {
    const result = await call(administration, await readBody(request))
    log.info({ call: name }, 'administered')
    send(200, result)
  } catch (error) {
    const fault = error instanceof z.ZodError ? invalid(name, error) : error
    const packed = packFault(fault)
    log.warn({ call: name, error: packed.message }, 'an administration call failed')
    send(isFault(fault) && fault.kind === 'usage' ? 400 : 500, packed)
  }
}

function invalid(name: string, error: z.ZodError): Error {
  const [issue] = error.issues
  const where = issue === undefined ? '' : `${issue.path.join('.')}: ${issue.message}`
  return keyserverFault('keyserver.admin_invalid', `the call ${name} is not valid: ${where}`)
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    length += chunk.length
    if (length > bodyLimit) {
      throw keyserverFault('keyserver.admin_invalid', 'the request is longer than 1 MiB')
    }
    chunks.push(chunk)
  }
  const text = Buffer.concat(chunks).toString('utf8')
  return text.trim() === '' ? {} : parseJson(text, 'the request')
}
