import type { Inspection } from '@holdfast/seal'

// What to do when key material may be known to others, as one plan: rotate, rekey, verify, destroy,
// and say what could not be reached. Pure. The order is the point: no key is destroyed before every
// volume that can be reached has been moved off it and has been seen to open without it.

/** A key server whose keys may be known to others. */
export interface ExposedServer {
  name: string
  /** Every exposed key, signing and exchange, hidden ones included, as it is now. */
  keys: readonly {
    kid: string
    /** The prefix it belongs to; empty for the main set. */
    prefix: string
    state: 'advertised' | 'hidden' | 'retired'
    /** Already marked as compromised by an earlier run of this plan. */
    marked: boolean
  }[]
}

/** One volume as it was last seen. */
export interface ExposedVolume {
  name: string
  /** Whether it can be rekeyed now. */
  reachable: boolean
  ways: readonly {
    keyslot: number
    purpose: 'automatic' | 'recovery' | 'owner' | 'unknown'
    /** What its sealed passphrase says about itself; absent for a passphrase slot. */
    inspection?: Inspection
  }[]
}

export type ExposureStep =
  | { do: 'mark_compromised'; server: string; keys: readonly string[] }
  | { do: 'rotate'; server: string; prefix: string }
  | { do: 'rekey'; volume: string; keyslot: number }
  | { do: 'verify'; volume: string }
  | { do: 'destroy'; server: string; keys: readonly string[] }

/** A volume that is bound to an exposed key and cannot be rekeyed now. */
export interface Unreached {
  volume: string
  keyslots: readonly number[]
  /** Pins of the best automatic way beyond its threshold once the keys are gone; negative: none opens. */
  margin: number
  /** Keyslots of recovery and owner ways, which need people. */
  recovery: readonly number[]
}

export interface ExposurePlan {
  steps: readonly ExposureStep[]
  /** Volumes to be rekeyed as soon as they can be reached; until then they are exposed. */
  unreached: readonly Unreached[]
  /** Volumes that would have no automatic way left if the keys were destroyed now. */
  stranded: readonly string[]
  unaffected: readonly string[]
}

/**
 * Plans the answer to an exposure of all keys of these servers. What an earlier run has done, the
 * states of the keys tell, and it is not done again.
 */
export function planExposure(
  servers: readonly ExposedServer[],
  volumes: readonly ExposedVolume[],
): ExposurePlan {
  const exposed = new Set(servers.flatMap(({ keys }) => keys.map(({ kid }) => kid)))
  const affected = volumes.map((volume) => ({ volume, keyslots: boundTo(volume, exposed) }))
  const rekeyed = affected.filter(({ volume, keyslots }) => volume.reachable && keyslots.length > 0)
  const away = affected.filter(({ volume, keyslots }) => !volume.reachable && keyslots.length > 0)
  const unreached = away.map(({ volume, keyslots }) => unreachedOf(volume, keyslots, exposed))
  return {
    steps: [
      ...servers.flatMap(({ name, keys }): ExposureStep[] => {
        const unmarked = keys.filter(({ marked }) => !marked).map(({ kid }) => kid)
        return unmarked.length === 0
          ? []
          : [{ do: 'mark_compromised', server: name, keys: unmarked }]
      }),
      ...servers.flatMap(({ name, keys }): ExposureStep[] => {
        const advertised = keys.filter(({ state }) => state === 'advertised')
        const prefixes = [...new Set(advertised.map(({ prefix }) => prefix))]
        return prefixes.map((prefix) => ({ do: 'rotate', server: name, prefix }))
      }),
      ...rekeyed.flatMap(({ volume, keyslots }): ExposureStep[] => [
        ...keyslots.map((keyslot): ExposureStep => {
          return { do: 'rekey', volume: volume.name, keyslot }
        }),
        { do: 'verify', volume: volume.name },
      ]),
      ...servers.flatMap(({ name, keys }): ExposureStep[] => {
        const there = keys.filter(({ state }) => state !== 'retired').map(({ kid }) => kid)
        return there.length === 0 ? [] : [{ do: 'destroy', server: name, keys: there }]
      }),
    ],
    unreached,
    stranded: unreached.filter(({ margin }) => margin < 0).map(({ volume }) => volume),
    unaffected: affected
      .filter(({ keyslots }) => keyslots.length === 0)
      .map(({ volume }) => volume.name),
  }
}

/** Keyslots whose sealed passphrase is sealed to one of these keys. */
export function boundTo(volume: ExposedVolume, keys: ReadonlySet<string>): number[] {
  return volume.ways
    .filter(({ inspection }) => inspection !== undefined && mentions(inspection, keys))
    .map(({ keyslot }) => keyslot)
}

function mentions(node: Inspection, keys: ReadonlySet<string>): boolean {
  if (node.kid !== undefined && keys.has(node.kid)) return true
  return (node.children ?? []).some((child) => mentions(child, keys))
}

function unreachedOf(
  volume: ExposedVolume,
  keyslots: readonly number[],
  exposed: ReadonlySet<string>,
): Unreached {
  const margins = volume.ways
    .filter(({ purpose }) => purpose === 'automatic')
    .flatMap(({ inspection }) => (inspection === undefined ? [] : [marginOf(inspection, exposed)]))
  const people = volume.ways.filter(({ purpose }) => ['recovery', 'owner'].includes(purpose))
  return {
    volume: volume.name,
    keyslots,
    margin: Math.max(-1, ...margins),
    recovery: people.map(({ keyslot }) => keyslot),
  }
}

/**
 * How many more children than needed still open without the lost keys: 0 is just enough, negative
 * is too few. A single pin has 0 or -1.
 */
export function marginOf(node: Inspection, lost: ReadonlySet<string>): number {
  if (node.threshold === undefined) return node.kid !== undefined && lost.has(node.kid) ? -1 : 0
  const standing = (node.children ?? []).filter((child) => marginOf(child, lost) >= 0).length
  return standing - node.threshold
}
