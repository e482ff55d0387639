import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseJsonObject, run, startProgram, systemClock } from '@holdfast/base'
import { createLog } from '@holdfast/base/log'
import { listenAsTangd } from '@holdfast/base/tangd-fixture'
import { type CurveName, generateEcKey, jwkOf, pointOf } from '@holdfast/crypto'

// What the tests of this part share: scratch directories, real tangd, raw HTTP.

/** A log that prints nothing. */
export const silentLog = createLog('keyserver', 'silent')

export interface Scratch extends AsyncDisposable {
  readonly path: string
}

/** An empty private directory, removed when disposed of. */
export async function scratch(): Promise<Scratch> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-keyserver-test-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

export interface Served extends AsyncDisposable {
  readonly port: number
  readonly pid: number
  /** Every line it printed on standard error so far. */
  readonly lines: readonly string[]
}

/** The real tangd of the distribution, executed per connection as its systemd socket does. */
export async function startTangd(directory: string): Promise<Served> {
  const { running, port } = await listenAsTangd(directory)
  return { port, pid: running.pid, lines: [], [Symbol.asyncDispose]: () => stop(running) }
}

/** `keyserver/src/main.ts` as a process of its own. */
export async function startProcess(
  args: readonly string[],
): Promise<Served & { readonly adminSocket: string }> {
  const main = join(import.meta.dirname, 'main.ts')
  const lines: string[] = []
  const { running, line } = await startProgram(
    process.execPath,
    [main, ...args],
    (text) => text.includes('"ready"'),
    { onLine: (text) => lines.push(text), readyWithin: 60_000, grace: 60_000 },
  )
  const ready = parseJsonObject(line, 'the ready line')
  return {
    port: Number(ready.port),
    adminSocket: String(ready.adminSocket),
    pid: running.pid,
    lines,
    [Symbol.asyncDispose]: () => stop(running),
  }
}

async function stop(running: AsyncDisposable): Promise<void> {
  await running[Symbol.asyncDispose]()
}

/** Sends bytes on a new connection and returns everything until the server has closed or fallen silent. */
export async function exchange(
  port: number,
  request: string | Uint8Array,
  done: (text: string) => boolean = isComplete,
): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  const chunks: Buffer[] = []
  const text = () => Buffer.concat(chunks).toString('latin1')
  const finished = new Promise<void>((resolve, reject) => {
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (done(text())) resolve()
    })
    socket.on('end', resolve)
    socket.on('close', () => resolve())
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') reject(error)
      else resolve()
    })
  })
  socket.setTimeout(60_000, () => socket.destroy())
  await Promise.race([once(socket, 'connect'), finished])
  socket.write(request)
  await finished
  socket.destroy()
  return text()
}

/** True when the text holds one whole reply. */
export function isComplete(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return false
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text.slice(0, end))?.[1] ?? 0)
  return text.length >= end + 4 + length
}

/** The status of a raw reply; 0 when the connection was closed without a word. */
export function statusOf(reply: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(reply)?.[1] ?? 0)
}

export function bodyOf(reply: string): string {
  return reply.slice(reply.indexOf('\r\n\r\n') + 4)
}

/** A request with a body, as curl sends it. */
export function post(path: string, body: string): string {
  const length = Buffer.byteLength(body)
  const type = 'Content-Type: application/jwk+json'
  return `POST ${path} HTTP/1.1\r\nHost: k\r\n${type}\r\nContent-Length: ${length}\r\n\r\n${body}`
}

/** Asks until it is so, for as long as a busy machine may need. */
export async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 4_000; attempt += 1) {
    if (await check()) return
    await systemClock.sleep(25)
  }
  assert.fail(`never: ${what}`)
}

/** A valid blinded point on the curve, as clevis sends it. */
export function blindedPoint(crv: CurveName): string {
  return JSON.stringify({ alg: 'ECMR', ...jwkOf(pointOf(generateEcKey(crv)), crv) })
}

/** Makes keys with tangd's own tool. */
export async function tangdKeygen(directory: string): Promise<void> {
  await run('tangd-keygen', [directory])
}
