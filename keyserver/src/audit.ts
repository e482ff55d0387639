import { createWriteStream, type WriteStream } from 'node:fs'
import { finished } from 'node:stream/promises'
import type { RecoveryEvent } from './listener.ts'

const backlogLimit = 8 * 1024 * 1024

/**
 * One JSON line per recovery, to standard output or appended to a file. Writing never waits: when the
 * reader falls 8 MiB behind, lines are dropped and counted.
 */
export class AuditLog implements AsyncDisposable {
  readonly #stream: WriteStream | undefined
  readonly #isFile: boolean
  #dropped = 0

  /** `target` is a path, `stdout`, or `none`. */
  constructor(target: string) {
    this.#isFile = target !== 'stdout' && target !== 'none'
    if (target === 'stdout') this.#stream = createWriteStream('', { fd: 1, autoClose: false })
    else if (this.#isFile) this.#stream = createWriteStream(target, { flags: 'a', mode: 0o640 })
    this.#stream?.on('error', () => undefined) // the lines count as dropped below
  }

  get dropped(): number {
    return this.#dropped
  }

  write(events: readonly RecoveryEvent[]): void {
    const stream = this.#stream
    if (stream === undefined || events.length === 0) return
    if (stream.errored !== null || stream.writableLength > backlogLimit) {
      this.#dropped += events.length
      return
    }
    stream.write(events.map(auditLine).join(''))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const stream = this.#stream
    if (stream === undefined || stream.errored !== null) return
    stream.end()
    await finished(stream).catch(() => undefined)
  }
}

function auditLine(event: RecoveryEvent): string {
  return `${JSON.stringify({
    time: new Date(event.at).toISOString(),
    event: 'recovery',
    source: event.source,
    ...(event.prefix === '' ? {} : { prefix: event.prefix }),
    kid: event.kid,
    ...(event.crv === '' ? {} : { curve: event.crv }),
    status: event.status,
    microseconds: event.microseconds,
  })}\n`
}
