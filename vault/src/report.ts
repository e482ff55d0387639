import { type Fault, isFault } from '@holdfast/base'
import { type AnyJwk, isSignedBy, mayDo, thumbprint } from '@holdfast/crypto'
import {
  createFetch,
  type Fetch,
  fetchAdvertisement,
  type Inspection,
  knownKeys,
} from '@holdfast/seal'
import { readInventory } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { bindingsOf } from './inventory.ts'
import { openVault, type VaultDeps } from './state.ts'

/** What a key server advertises now, compared with what a binding stores. */
export interface ReportedServer {
  url: string
  /** Thumbprint of the exchange key that the share is sealed to. */
  kid: string
  /**
   * `current`: every stored key is still advertised. `rotated`: some are not: regenerate the binding.
   * `untrusted`: what answers is not signed by any key the binding knows.
   */
  state: 'current' | 'rotated' | 'unreachable' | 'untrusted'
  /** Stored keys that are no longer advertised. */
  gone: readonly { thumbprint: string; use: string }[]
  /** Advertised keys that the binding does not store. */
  fresh: readonly { thumbprint: string; use: string }[]
  /** Thumbprint of the stored key whose signature vouches for what is advertised now. */
  vouchedBy?: string
  fault?: Fault
}

export interface ReportedBinding {
  keyslot: number
  purpose: string
  servers: readonly ReportedServer[]
  /** True when something has been rotated: `clevis luks report` exits with 1 then. */
  rotated: boolean
}

export interface ReportOptions {
  /** Only this keyslot. */
  keyslot?: number
  fetch?: Fetch
  signal?: AbortSignal
}

/** Compares every `tang` pin's stored keys with what its server advertises. Changes nothing. */
export async function reportVault(
  deps: VaultDeps,
  volume: VolumeRef,
  options: ReportOptions = {},
): Promise<ReportedBinding[]> {
  const vault = await openVault(deps, volume)
  const inventory = await readInventory(vault)
  const { keyslot, fetch = createFetch(), signal = AbortSignal.timeout(60_000) } = options
  const slots = bindingsOf(inventory, ['automatic', 'recovery']).filter(
    (slot) => keyslot === undefined || slot.keyslot === keyslot,
  )
  return await Promise.all(
    slots.map(async (slot) => {
      const keys = knownKeys(slot.jwe)
      const leaves = slot.inspection === undefined ? [] : tangLeaves(slot.inspection)
      const servers = await Promise.all(
        leaves.map((leaf) => {
          const own = keys.filter(({ url }) => url === leaf.url).map(({ key }) => key)
          return reportServer(leaf, own, { fetch, signal })
        }),
      )
      const rotated = servers.some((server) => server.state === 'rotated')
      return { keyslot: slot.keyslot, purpose: slot.purpose, servers, rotated }
    }),
  )
}

function tangLeaves(inspection: Inspection): Inspection[] {
  if (inspection.pin === 'tang') return [inspection]
  return (inspection.children ?? []).flatMap(tangLeaves)
}

async function reportServer(
  leaf: Inspection,
  keys: readonly AnyJwk[],
  access: { fetch: Fetch; signal: AbortSignal },
): Promise<ReportedServer> {
  const stored = leaf.keys ?? []
  const found = { url: leaf.url ?? leaf.label, kid: leaf.kid ?? '', gone: [], fresh: [] }
  const known = keys.filter((key) => stored.some(({ thumbprint: thp }) => thp === thumbprint(key)))
  try {
    const advertisement = await fetchAdvertisement({ url: found.url }, { ...access, known })
    const trusted = stored.filter(({ use }) => use === 'signing').map((key) => key.thumbprint)
    if (!isSignedBy(advertisement, trusted, known)) return { ...found, state: 'untrusted' }
    const advertised = advertisement.keys.map((key) => ({
      thumbprint: thumbprint(key),
      use: mayDo(key, 'verify') ? 'signing' : 'exchange',
    }))
    const gone = without(stored, advertised)
    const vouchedBy = advertisement.signedBy.find((thp) => trusted.includes(thp))
    return {
      ...found,
      state: gone.length === 0 ? 'current' : 'rotated',
      gone,
      fresh: without(advertised, stored),
      ...(vouchedBy === undefined ? {} : { vouchedBy }),
    }
  } catch (error) {
    access.signal.throwIfAborted()
    if (!isFault(error)) throw error
    const state = error.kind === 'unavailable' ? 'unreachable' : 'untrusted'
    return { ...found, state, fault: error }
  }
}

function without(
  keys: readonly { thumbprint: string; use: string }[],
  others: readonly { thumbprint: string }[],
) {
  return keys
    .filter((key) => !others.some((other) => other.thumbprint === key.thumbprint))
    .map(({ thumbprint: thp, use }) => ({ thumbprint: thp, use }))
}
