import type { JsonObject } from '@holdfast/base'
import { vaultFault } from './faults.ts'
import type { Inventory, Slot } from './inventory.ts'
import {
  compactLength,
  freeKeyslot,
  freeToken,
  keyslotJsonLength,
  type Metadata,
} from './metadata.ts'

// Decides how a change of the ways in is made, without making it. The order is always: add, prove,
// and only then remove. Everything up to the proof can be undone, everything after it can only be
// finished; that is what the journal turns on.

/** What is to be different afterwards. */
export interface Change {
  /** A new way in. The token's `keyslots` is filled in here. */
  add?: {
    token: JsonObject
    /** Numbers asked for; otherwise the lowest free ones. */
    keyslot?: number
    tokenId?: number
  }
  /** The keyslot to remove. */
  remove?: number
  /** Allow removing the last automatic, or the last recovery or owner, way in; never the last of all. */
  force?: boolean
}

export type Step =
  | { do: 'add_keyslot'; keyslot: number }
  | { do: 'write_token'; token: number; replace: boolean; json: JsonObject }
  | { do: 'prove'; keyslot: number; token: number }
  | { do: 'commit' }
  | { do: 'remove_token'; token: number }
  | { do: 'kill_keyslot'; keyslot: number; salt: string }

export interface Plan {
  /**
   * `beside`: old and new token stand side by side until the new one is proven. `in_place`: there is
   * room for one only, so the new token replaces the old in one header write, and the old one is kept
   * in the journal until the new one is proven.
   */
  mode: 'beside' | 'in_place'
  steps: readonly Step[]
  added: { keyslot: number; token: number; json: JsonObject } | undefined
  removed:
    | { keyslot: number; salt: string; token: number | undefined; json?: JsonObject }
    | undefined
  /** Bytes of the JSON area left when most is in it. */
  spare: number
}

/**
 * Plans a change.
 * @throws Fault vault.slot_absent, vault.slot_foreign, vault.last_way_in, vault.header_area_full,
 *   vault.requirements_unknown
 */
export function planChange(inventory: Inventory, change: Change): Plan {
  requireIdle(inventory)
  const removed = change.remove === undefined ? undefined : slotToRemove(inventory, change.remove)
  if (removed !== undefined && change.add === undefined) {
    requireRemaining(inventory, removed, change.force ?? false)
  }
  const { metadata } = inventory
  const old = removed?.token === undefined ? undefined : metadata.tokens.get(removed.token)
  const gone = removed && {
    keyslot: removed.keyslot,
    salt: removed.salt,
    token: removed.token,
    ...(old === undefined ? {} : { json: old.json }),
  }
  const add = change.add
  if (add === undefined) {
    const spare = metadata.jsonCapacity - metadata.jsonUsed
    return { mode: 'beside', steps: removal(gone), added: undefined, removed: gone, spare }
  }
  const keyslot = chooseKeyslot(inventory, add.keyslot)
  const json: JsonObject = { ...add.token, keyslots: [`${keyslot}`] }
  const room = measure(metadata, json, old?.json)
  const beside = room.beside >= 0 ? chooseToken(metadata, add.tokenId) : undefined
  if (beside !== undefined) {
    const added = { keyslot, token: beside, json }
    const steps = [...addition(added, false), ...removal(gone)]
    return { mode: 'beside', steps, added, removed: gone, spare: room.beside }
  }
  if (old === undefined || room.inPlace < 0) throw areaFull(metadata, json, room)
  const added = { keyslot, token: old.id, json }
  const steps = [...addition(added, true), ...removal(gone && { ...gone, token: undefined })]
  return { mode: 'in_place', steps, added, removed: gone, spare: room.inPlace }
}

/** The ways in that would remain without `removed`, by what they are worth. */
export function remainingWays(inventory: Inventory, removed: Slot) {
  const others = inventory.slots.filter(
    (slot) => slot.keyslot !== removed.keyslot && slot.opensData && slot.problem === undefined,
  )
  return {
    automatic: others.filter((slot) => slot.purpose === 'automatic'),
    recovery: others.filter((slot) => slot.purpose === 'recovery' || slot.purpose === 'owner'),
    foreign: others.filter((slot) => slot.owner === 'foreign'),
  }
}

function addition(added: NonNullable<Plan['added']>, replace: boolean): Step[] {
  const { keyslot, token, json } = added
  return [
    { do: 'add_keyslot', keyslot },
    { do: 'write_token', token, replace, json },
    { do: 'prove', keyslot, token },
  ]
}

function removal(
  removed: { keyslot: number; salt: string; token: number | undefined } | undefined,
): Step[] {
  const commit: Step = { do: 'commit' }
  if (removed === undefined) return [commit]
  const { keyslot, salt, token } = removed
  const detach: Step[] = token === undefined ? [] : [{ do: 'remove_token', token }]
  return [commit, ...detach, { do: 'kill_keyslot', keyslot, salt }]
}

function requireIdle({ requirements }: Inventory): void {
  if (requirements.length === 0) return
  throw vaultFault(
    'vault.requirements_unknown',
    `the volume is in the middle of something else: ${requirements.join(', ')}`,
    { hint: 'finish it first, for instance with: cryptsetup reencrypt --resume-only DEVICE' },
  )
}

function slotToRemove(inventory: Inventory, keyslot: number): Slot {
  const slot = inventory.slots.find((candidate) => candidate.keyslot === keyslot)
  if (slot === undefined) {
    throw vaultFault('vault.slot_absent', `keyslot ${keyslot} is not in use`, {
      hint: 'see which are: holdfast vault list',
    })
  }
  if (slot.owner !== 'foreign') return slot
  throw vaultFault('vault.slot_foreign', `keyslot ${keyslot} was not made by Holdfast or clevis`, {
    hint: "it may be somebody's passphrase; if it has to go, remove it with cryptsetup luksKillSlot",
  })
}

function requireRemaining(inventory: Inventory, removed: Slot, force: boolean): void {
  const { automatic, recovery, foreign } = remainingWays(inventory, removed)
  const refuse = (what: string, hint: string) =>
    vaultFault('vault.last_way_in', `keyslot ${removed.keyslot} is the ${what}`, { hint })
  if (automatic.length + recovery.length + foreign.length === 0) {
    throw refuse('last way into this volume', 'add another one first: holdfast vault bind')
  }
  if (force) return
  if (removed.purpose === 'automatic' && automatic.length === 0) {
    throw refuse(
      'last automatic way into this volume',
      'add another one first, or say --force to go without: it will not open unattended any more',
    )
  }
  if (removed.purpose !== 'automatic' && recovery.length === 0) {
    throw refuse('last recovery way into this volume', 'add another one first, or say --force')
  }
}

function chooseKeyslot(inventory: Inventory, wanted: number | undefined): number {
  const { metadata, space } = inventory
  if (wanted !== undefined && metadata.keyslots.has(wanted)) {
    throw vaultFault('vault.header_area_full', `keyslot ${wanted} is in use`, {
      hint: 'name another one, or none',
    })
  }
  const chosen = wanted ?? freeKeyslot(metadata)
  if (chosen !== undefined && chosen < 32 && space.keyslotArea) return chosen
  throw vaultFault('vault.header_area_full', 'the header has no room for another keyslot', {
    hint: 'remove a keyslot that is no longer needed: holdfast vault unbind',
  })
}

function chooseToken(metadata: Metadata, wanted: number | undefined): number | undefined {
  if (wanted === undefined || metadata.tokens.has(wanted)) return freeToken(metadata)
  return wanted
}

/** What is left of the JSON area in either mode, in bytes; negative when it does not fit. */
function measure(metadata: Metadata, token: JsonObject, old: JsonObject | undefined) {
  const named = (json: JsonObject) => compactLength(json) + '"31":,'.length
  const free = metadata.jsonCapacity - metadata.jsonUsed - keyslotJsonLength(metadata)
  const beside = free - named(token)
  return { beside, inPlace: old === undefined ? -1 : beside + named(old) }
}

function areaFull(metadata: Metadata, token: JsonObject, room: { beside: number }): Error {
  return vaultFault(
    'vault.header_area_full',
    `the policy needs ${compactLength(token)} bytes in the header, ${-room.beside} more than are free`,
    {
      hint: 'use fewer pins or P-256 key servers; volumes made by "holdfast vault create" have room for far more',
      details: {
        needed: compactLength(token),
        missing: -room.beside,
        capacity: metadata.jsonCapacity,
      },
    },
  )
}
