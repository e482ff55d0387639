import { baseFault } from './faults.ts'

export type JsonObject = Record<string, unknown>

/** How deep arrays and objects may nest: more would exhaust the stack of whoever walks them. */
const depthLimit = 64

/** Parses JSON of at most `limit` characters; anything else is a fault naming `what`. */
export function parseJson(text: string, what: string, limit = 1_000_000): unknown {
  if (text.length > limit) {
    throw baseFault('base.bad_json', `${what} is longer than ${limit} characters`)
  }
  if (nestsDeeperThan(text, depthLimit)) {
    throw baseFault('base.bad_json', `${what} is nested deeper than ${depthLimit}`)
  }
  try {
    return JSON.parse(text)
  } catch (cause) {
    // The parser's own message quotes the input, which may be secret.
    throw baseFault('base.bad_json', `${what} is not JSON`, { cause: (cause as Error).name })
  }
}

const quote = 0x22
const backslash = 0x5c
const opening = new Set([0x5b, 0x7b])
const closing = new Set([0x5d, 0x7d])

/** True when brackets and braces outside strings stand more than `limit` deep. */
function nestsDeeperThan(text: string, limit: number): boolean {
  let depth = 0
  let inString = false
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    if (inString) {
      if (code === backslash) index += 1
      else if (code === quote) inString = false
    } else if (code === quote) {
      inString = true
    } else if (opening.has(code)) {
      depth += 1
      if (depth > limit) return true
    } else if (closing.has(code)) {
      depth -= 1
    }
  }
  return false
}

/** True for a JSON object: not null and not an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Parses JSON that must be an object. */
export function parseJsonObject(text: string, what: string, limit?: number): JsonObject {
  const value = parseJson(text, what, limit)
  if (!isObject(value)) throw baseFault('base.bad_json', `${what} is not a JSON object`)
  return value
}

/**
 * Compact JSON with object members sorted by name at every level, as `jose` and `tangd` print it.
 * Names that are whole numbers come first, as JavaScript orders them: the formats here have none.
 */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) =>
    isObject(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  )
}
