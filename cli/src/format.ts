// Numbers and times as people read them.

/** How long ago, one unit: `12 s`, `5 min`, `3 h`, `9 d`; `never` for undefined. Milliseconds. */
export function age(then: number | undefined, now: number): string {
  if (then === undefined) return 'never'
  const seconds = Math.max(0, Math.round((now - then) / 1000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

/** A moment in milliseconds since 1970 as `2026-01-31 12:00:00Z`; a dash for undefined. */
export function moment(at: number | undefined): string {
  return at === undefined ? '-' : `${new Date(at).toISOString().slice(0, 19).replace('T', ' ')}Z`
}

/** Bytes with a binary unit. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let [value, unit] = [bytes, 0]
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1]
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`
}

/**
 * Bytes from `64M`, `1G` or `16777216`: K, M, G and T are powers of 1024. Undefined when it is
 * none of these.
 */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,15})([KMGT]?)(?:i?B)?$/i.exec(text)
  if (match === null) return undefined
  const power = ['', 'K', 'M', 'G', 'T'].indexOf((match[2] ?? '').toUpperCase())
  const bytes = Number(match[1]) * 1024 ** power
  return Number.isSafeInteger(bytes) ? bytes : undefined
}
