import { canonicalJson, isFault } from '@holdfast/base'
import {
  formatPolicy,
  type Inspection,
  inspect,
  type Pins,
  type Policy,
  policyOf,
} from '@holdfast/seal'
import { hasKeyslotArea, type Metadata, slotLimit } from './metadata.ts'
import { type Mark, type Purpose, readToken, type Token } from './token.ts'

/** Who wrote the slot: `foreign` ones are reported and never removed. */
export type SlotOwner = 'holdfast' | 'clevis' | 'foreign'

/** One keyslot with everything its token says. */
export interface Slot {
  keyslot: number
  /** The key derivation's salt: the slot's identity, should its number be used again. */
  salt: string
  owner: SlotOwner
  /** `unknown` for a foreign slot: most often a passphrase somebody set before. */
  purpose: Purpose | 'unknown'
  derivation: string | undefined
  /** False for a slot that holds no key of the data: it opens nothing. */
  opensData: boolean
  token: number | undefined
  /** The sealed passphrase, where there is one. */
  jwe: string | undefined
  mark: Mark | undefined
  /** What the sealed passphrase says about itself; absent where it cannot be read. */
  inspection: Inspection | undefined
  /** The policy that would seal to the same ways in again. */
  policy: Policy | undefined
  /** Why this slot cannot be used as it should. */
  problem: string | undefined
}

/** A token that leads nowhere. */
export interface Orphan {
  token: number
  type: string
  reason: string
}

export interface Space {
  /** Bytes left in the JSON area. */
  json: number
  /** Keyslot numbers left. */
  keyslots: number
  /** True when the keyslot areas have room for one more key. */
  keyslotArea: boolean
}

/** What a volume's header holds. */
export interface Inventory {
  slots: readonly Slot[]
  orphans: readonly Orphan[]
  /** Groups of automatic keyslots with one and the same policy: usually a bind that was repeated. */
  duplicates: readonly (readonly number[])[]
  space: Space
  /** Unfinished business of cryptsetup's, such as a re-encryption. */
  requirements: readonly string[]
  metadata: Metadata
}

/** Reads the header's content; never throws on what a token may hold. */
export function takeInventory(metadata: Metadata, pins: Pins): Inventory {
  const tokens = [...metadata.tokens.values()].map(readToken)
  const claims = new Map<number, Token>()
  const orphans: Orphan[] = []
  for (const token of tokens) claim(token, metadata, claims, orphans)
  const slots = [...metadata.keyslots.values()].map((keyslot) => {
    const raw = { ...base(keyslot.id, metadata), owner: 'foreign' as const }
    const token = claims.get(keyslot.id)
    return token === undefined ? { ...raw, ...nothingKnown } : { ...raw, ...known(token, pins) }
  })
  return {
    slots,
    orphans,
    duplicates: duplicatesOf(slots),
    space: {
      json: Math.max(0, metadata.jsonCapacity - metadata.jsonUsed),
      keyslots: slotLimit - metadata.keyslots.size,
      keyslotArea: hasKeyslotArea(metadata),
    },
    requirements: metadata.requirements,
    metadata,
  }
}

/** The bindings, slots with a readable sealed passphrase, of these purposes. */
export function bindingsOf(
  inventory: Inventory,
  purposes: readonly Purpose[] = ['automatic'],
): (Slot & { jwe: string; token: number; purpose: Purpose })[] {
  return inventory.slots.filter(
    (slot): slot is Slot & { jwe: string; token: number; purpose: Purpose } =>
      slot.jwe !== undefined &&
      slot.token !== undefined &&
      slot.opensData &&
      slot.purpose !== 'unknown' &&
      purposes.includes(slot.purpose),
  )
}

/** A policy as text that is the same for the same policy. */
export function policyText(policy: Policy): string {
  return canonicalJson(formatPolicy(policy))
}

type Known = Omit<Slot, 'keyslot' | 'salt' | 'derivation' | 'opensData'>

const nothingKnown: Omit<Known, 'owner'> = {
  purpose: 'unknown',
  token: undefined,
  jwe: undefined,
  mark: undefined,
  inspection: undefined,
  policy: undefined,
  problem: undefined,
}

function base(id: number, metadata: Metadata) {
  const slot = metadata.keyslots.get(id)
  return {
    keyslot: id,
    salt: slot?.salt ?? '',
    derivation: slot?.derivation,
    opensData: slot?.opensData ?? false,
  }
}

function claim(
  token: Token,
  metadata: Metadata,
  claims: Map<number, Token>,
  orphans: Orphan[],
): void {
  if (token.kind === 'foreign') return
  const [first] = token.keyslots.filter((keyslot) => metadata.keyslots.has(keyslot))
  const type = metadata.tokens.get(token.id)?.type ?? ''
  if (token.kind === 'malformed') {
    orphans.push({ token: token.id, type, reason: token.reason })
  }
  if (first === undefined) {
    if (token.kind !== 'malformed') {
      orphans.push({ token: token.id, type, reason: 'it belongs to no keyslot' })
    }
    return
  }
  // clevis looks a token up by its first keyslot and so does this; one token, one slot.
  const other = claims.get(first)
  if (other === undefined || other.kind === 'malformed') claims.set(first, token)
  else if (token.kind !== 'malformed') {
    const reason = `keyslot ${first} is already described by token ${other.id}`
    orphans.push({ token: token.id, type, reason })
  }
}

function known(token: Token, pins: Pins): Known {
  switch (token.kind) {
    case 'owner':
      return {
        ...nothingKnown,
        owner: 'holdfast',
        purpose: 'owner',
        token: token.id,
        mark: token.mark,
      }
    case 'binding': {
      const described = describe(token.jwe, pins)
      return {
        owner: token.mark === undefined ? 'clevis' : 'holdfast',
        purpose: token.purpose,
        token: token.id,
        jwe: token.jwe,
        mark: token.mark,
        ...described,
      }
    }
    case 'malformed':
      return { ...nothingKnown, owner: 'foreign', token: token.id, problem: token.reason }
    default:
      return { ...nothingKnown, owner: 'foreign', token: token.id }
  }
}

function describe(jwe: string, pins: Pins): Pick<Slot, 'inspection' | 'policy' | 'problem'> {
  try {
    return { inspection: inspect(pins, jwe), policy: policyOf(pins, jwe), problem: undefined }
  } catch (error) {
    const problem = isFault(error) ? error.message : 'its sealed secret cannot be read'
    return { inspection: undefined, policy: undefined, problem }
  }
}

function duplicatesOf(slots: readonly Slot[]): number[][] {
  const groups = new Map<string, number[]>()
  for (const slot of slots) {
    if (slot.purpose !== 'automatic' || slot.policy === undefined) continue
    const text = policyText(slot.policy)
    groups.set(text, [...(groups.get(text) ?? []), slot.keyslot])
  }
  return [...groups.values()].filter((group) => group.length > 1)
}
