import { stripVTControlCharacters } from 'node:util'
import type { Streams } from './streams.ts'

const hideCursor = '\u001b[?25l'
const showCursor = '\u001b[?25h'

/** A part of the terminal that is drawn again in place. Disposing gives the cursor back. */
export class LiveScreen implements Disposable {
  /** False when standard output is no terminal: then nothing is drawn. */
  readonly live: boolean
  readonly #streams: Streams
  #rows = 0

  constructor(streams: Streams, live: boolean) {
    this.live = live
    this.#streams = streams
  }

  /**
   * Replaces what was drawn before. Lines that are too long are cut, so that none wraps, and rows that
   * do not fit are left out, because the cursor cannot go back above the first one.
   */
  async draw(text: string): Promise<void> {
    if (!this.live) return
    const { columns, rows } = this.#streams
    const lines = text
      .split('\n')
      .slice(0, Math.max(1, rows - 1))
      .map((line) => fitted(line, columns))
    const back = this.#rows === 0 ? hideCursor : `\u001b[${this.#rows}A\u001b[0J`
    this.#rows = lines.length
    await this.#streams.out(`${back}${lines.join('\n')}\n`)
  }

  [Symbol.dispose](): void {
    if (this.live && this.#rows > 0) void this.#streams.out(showCursor)
  }
}

/** Cuts a line to the terminal's width; a cut line loses its colours. */
export function fitted(line: string, columns: number): string {
  const plain = stripVTControlCharacters(line)
  return plain.length <= columns ? line : plain.slice(0, columns)
}
