import { createHash } from 'node:crypto'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { cliFault } from './faults.ts'

// A text in numbered parts that fit into QR codes: `holdfast:NAME:I/N:DATA`, DATA base64url of a
// slice of the deflated text, NAME eight letters of its SHA-256, so that parts of two texts are not
// mixed up and the whole is checked. Parts may come in any order, more than once, and with other
// lines between them, as scanners print.

const pattern = /holdfast:([\w-]{8}):(\d{1,3})\/(\d{1,3}):([\w-]+)/g
const textLimit = 1_000_000

/** Characters of data in one part: a QR code that a telephone reads from a screen. */
const partLength = 700

/** Splits a text; the parts are numbered from 1. */
export function splitText(text: string, length = partLength): string[] {
  const data = deflateRawSync(Buffer.from(text), { level: 9 }).toString('base64url')
  const count = Math.ceil(data.length / length)
  return Array.from({ length: count }, (_, index) => {
    const slice = data.slice(index * length, (index + 1) * length)
    return `holdfast:${nameOf(text)}:${index + 1}/${count}:${slice}`
  })
}

/**
 * The text that the given lines hold: the parts put together, or the lines themselves when they
 * hold no part.
 * @throws Fault cli.answer_part_missing, cli.config_invalid
 */
export function joinText(given: string, what: string): string {
  const parts = [...given.matchAll(pattern)].map(([, name = '', index, count, data = '']) => ({
    name,
    index: Number(index),
    count: Number(count),
    data,
  }))
  const [first] = parts
  if (first === undefined) return given.trim()
  if (parts.some(({ name, count }) => name !== first.name || count !== first.count)) {
    throw cliFault('cli.config_invalid', `the parts of ${what} belong to different texts`, {
      hint: 'give the parts of one only; the eight letters after "holdfast:" tell them apart',
    })
  }
  const byIndex = new Map(parts.map(({ index, data }) => [index, data]))
  const numbers = Array.from({ length: first.count }, (_, index) => index + 1)
  const missing = numbers.filter((number) => !byIndex.has(number))
  if (missing.length > 0) {
    const text = `part ${missing.join(', ')} of ${first.count} of ${what} is missing`
    throw cliFault('cli.answer_part_missing', text, { hint: 'scan the missing codes too' })
  }
  return inflated(numbers.map((number) => byIndex.get(number)).join(''), first.name, what)
}

function inflated(data: string, name: string, what: string): string {
  let text: string
  try {
    const bytes = inflateRawSync(Buffer.from(data, 'base64url'), { maxOutputLength: textLimit })
    text = bytes.toString('utf8')
  } catch (cause) {
    throw damaged(what, cause)
  }
  if (nameOf(text) !== name) throw damaged(what)
  return text
}

function damaged(what: string, cause?: unknown): Error {
  return cliFault('cli.config_invalid', `the parts of ${what} do not fit together`, {
    cause,
    hint: 'one of them was read wrongly: scan them again',
  })
}

function nameOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 8)
}
