import { baseFault } from './faults.ts'

export type JsonObject = Record<string, unknown>

/** Parses JSON of at most `limit` characters; anything else is a fault naming `what`. */
export function parseJson(text: string, what: string, limit = 1_000_000): unknown {
  if (text.length > limit) {
    throw baseFault('base.bad_json', `${what} is longer than ${limit} characters`)
  }
  try {
    return JSON.parse(text)
  } catch (cause) {
    // The parser's own message quotes the input, which may be secret.
    throw baseFault('base.bad_json', `${what} is not JSON`, { cause: (cause as Error).name })
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Parses JSON that must be an object. */
export function parseJsonObject(text: string, what: string, limit?: number): JsonObject {
  const value = parseJson(text, what, limit)
  if (!isObject(value)) throw baseFault('base.bad_json', `${what} is not a JSON object`)
  return value
}

/** Compact JSON with object members sorted by name at every level, as `jose` and `tangd` print it. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) =>
    isObject(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  )
}
