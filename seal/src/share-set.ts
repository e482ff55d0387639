import { createHash, randomBytes } from 'node:crypto'
import {
  type Fault,
  fromBase64url,
  isObject,
  type JsonObject,
  type Secret,
  toBase64url,
} from '@holdfast/base'
import { type Jwe, shareLength } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import { malformed, pinHeader, printable, readUse } from './header.ts'
import type { SealedUse, ShareMembership } from './pin.ts'
import { childLimit } from './policy.ts'

// A threshold's protected header in clevis's `sss` form, and beside it, under `holdfast`, what
// makes each share checkable alone: the set's name and generation, the shares' names and a
// verifier for each. A verifier is a hash of 64 bytes of which 32 are uniformly random, so it gives
// nothing away.

/** What is public and authenticated about a set of shares. */
export interface ShareSet {
  /** Random name of the set; it stays when the secret is resealed. */
  readonly set: string
  /** Counts resealings, from 1. */
  readonly generation: number
  /** Names of the shares, in order. */
  readonly names: readonly string[]
  /** SHA-256 of each share in its place, base64url. */
  readonly verifiers: readonly string[]
}

/** The parts of a threshold's header. `shares` is missing in what clevis made. */
export interface ThresholdForm {
  readonly threshold: number
  readonly prime: Buffer
  readonly children: readonly string[]
  readonly shares?: ShareSet
  /** What the whole secret is for, where it says. */
  readonly use?: SealedUse
}

/** A name for a new set: base64url of 16 random bytes. */
export function newSetName(): string {
  return toBase64url(randomBytes(16))
}

/** SHA-256, base64url, of a share together with its place, so that it fits nowhere else. */
export function verifierOf(share: Secret, place: ShareMembership, threshold: number): string {
  const context = ['holdfast share 1', place.set, place.generation, place.index, threshold].join(
    '\n',
  )
  return createHash('sha256').update(`${context}\n`).update(share.reveal()).digest('base64url')
}

/**
 * Checks one share alone against its verifier. Shares of what clevis made cannot be checked alone;
 * of those only the length is.
 * @throws Fault seal.share_wrong
 */
export function checkShare(share: Secret, index: number, form: ThresholdForm): void {
  const { shares, threshold } = form
  if (share.length !== shareLength) throw wrongShare(form, index)
  if (shares === undefined) return
  const place = { set: shares.set, generation: shares.generation, index }
  if (verifierOf(share, place, threshold) !== shares.verifiers[index]) throw wrongShare(form, index)
}

/**
 * Checks that a sealed share belongs to this place of this set.
 * @throws Fault seal.use_foreign, seal.share_foreign, seal.share_stale, seal.share_duplicate
 */
export function checkMembership(child: Jwe, index: number, form: ThresholdForm): void {
  const { shares, use } = form
  const own = readUse(child)
  if (own !== undefined && (own.purpose !== use?.purpose || own.of !== use.of)) {
    const text = `the share of ${shareName(form, index)} is of a secret that is for something else`
    throw sealFault('seal.use_foreign', text)
  }
  const claimed = readMembership(child)
  if (shares === undefined || claimed === undefined) return
  const name = shareName(form, index)
  if (claimed.set !== shares.set) {
    throw sealFault('seal.share_foreign', `the share of ${name} belongs to another secret`)
  }
  if (claimed.generation !== shares.generation) {
    const text = `the share of ${name} is of generation ${claimed.generation}, the secret of ${shares.generation}`
    throw sealFault('seal.share_stale', text)
  }
  if (claimed.index !== index) {
    const text = `the share of ${shareName(form, claimed.index)} stands in the place of ${name}`
    throw sealFault('seal.share_duplicate', text)
  }
}

/** The name a share goes by in messages, safe to print. */
export function shareName(form: ThresholdForm, index: number): string {
  return printable(form.shares?.names[index] ?? `share ${index + 1}`)
}

/** The fault for a share that does not fit. */
export function wrongShare(form: ThresholdForm, index: number): Fault {
  return sealFault('seal.share_wrong', `the share of ${shareName(form, index)} is wrong`, {
    details: { share: shareName(form, index), index },
  })
}

/** The membership that a sealed share claims, if it claims one. */
export function readMembership(jwe: Jwe): ShareMembership | undefined {
  const { holdfast } = jwe.header
  const share = isObject(holdfast) ? holdfast.share : undefined
  if (!isObject(share)) return undefined
  const { set, generation, index } = share
  if (typeof set !== 'string' || !isCount(generation) || !isCount(index)) {
    throw malformed('its share membership cannot be read')
  }
  return { set, generation, index }
}

/** The protected-header members of a threshold. */
export function thresholdHeader(form: ThresholdForm): { sss: JsonObject; shares: JsonObject } {
  const { threshold, prime, children, shares } = form
  return {
    sss: { jwe: children, p: toBase64url(prime), t: threshold },
    shares: { v: 1, k: threshold, n: children.length, ...shares },
  }
}

/** Reads a threshold's header. @throws Fault seal.sealed_malformed */
export function readThreshold(jwe: Jwe): ThresholdForm {
  const { jwe: list, p, t } = pinHeader(jwe, 'sss')
  if (
    !Array.isArray(list) ||
    list.length > childLimit ||
    !list.every((child) => typeof child === 'string')
  ) {
    throw malformed('its threshold has no list of shares')
  }
  if (!isCount(t) || t < 1 || t > list.length || typeof p !== 'string') {
    throw malformed('its threshold or modulus cannot be used')
  }
  const shares = readShareSet(jwe, list.length)
  const use = readUse(jwe)
  return {
    ...{ threshold: t, prime: fromBase64url(p, 'the modulus') },
    children: list as string[], // checked above
    ...(shares === undefined ? {} : { shares }),
    ...(use === undefined ? {} : { use }),
  }
}

function readShareSet(jwe: Jwe, count: number): ShareSet | undefined {
  const { holdfast } = jwe.header
  const shares = isObject(holdfast) ? holdfast.shares : undefined
  if (shares === undefined) return undefined
  if (!isObject(shares) || shares.v !== 1) throw malformed('its share set is of an unknown version')
  const { set, generation, names, verifiers } = shares
  const texts = (list: unknown): list is string[] =>
    Array.isArray(list) && list.length === count && list.every((item) => typeof item === 'string')
  if (typeof set !== 'string' || !isCount(generation) || !texts(names) || !texts(verifiers)) {
    throw malformed('its share set cannot be read')
  }
  return { set, generation, names, verifiers }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0
}
