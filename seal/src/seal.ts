import type { Secret } from '@holdfast/base'
import { encryptJwe, splitNewSecret } from '@holdfast/crypto'
import { holdfastMember } from './header.ts'
import type { Pins, SealOptions } from './pin.ts'
import { checkSize, type Policy, type ThresholdPolicy } from './policy.ts'
import { newSetName, thresholdHeader, verifierOf } from './share-set.ts'

export interface SealRequest extends SealOptions {
  /** The set this secret's shares belong to; kept by a reseal, otherwise new. */
  set?: string
  /** Counts the resealings of one secret, from 1, so that stale shares are told apart. */
  generation?: number
}

/**
 * Seals a secret under a policy. Every pin is asked at once; nothing is returned unless all of
 * them could seal.
 * @returns a compact JWE that clevis opens too where it has the pins
 * @throws Fault seal.policy_invalid, seal.trust_required, seal.trust_refused, seal.server_*
 */
export async function seal(
  pins: Pins,
  policy: Policy,
  plaintext: Secret,
  request: SealRequest = {},
): Promise<string> {
  checkSize(policy)
  const failed = new AbortController() // when one pin cannot seal, the others need not go on
  const signals = [failed.signal, ...(request.signal === undefined ? [] : [request.signal])]
  try {
    return await sealNode(pins, policy, plaintext, {
      ...request,
      signal: AbortSignal.any(signals),
    })
  } finally {
    failed.abort()
  }
}

async function sealNode(
  pins: Pins,
  policy: Policy,
  plaintext: Secret,
  request: SealRequest,
): Promise<string> {
  if (policy.kind === 'threshold') return await sealThreshold(pins, policy, plaintext, request)
  return await pins.get(policy.pin).seal(plaintext, policy.config, request)
}

async function sealThreshold(
  pins: Pins,
  policy: ThresholdPolicy,
  plaintext: Secret,
  request: SealRequest,
): Promise<string> {
  const { children, threshold } = policy
  const { set = newSetName(), generation = 1, ...options } = request
  const split = splitNewSecret(threshold, children.length)
  try {
    const sealed = await Promise.all(
      split.shares.map(async (share, index) => {
        const child = children[index] as Policy // as many shares as children
        const place = { set, generation, index }
        return await sealNode(pins, child, share, { ...options, generation, membership: place })
      }),
    )
    const verifiers = split.shares.map((share, index) =>
      verifierOf(share, { set, generation, index }, threshold),
    )
    const shares = {
      set,
      generation,
      names: children.map((child) => nameOf(pins, child)),
      verifiers,
    }
    const header = thresholdHeader({ threshold, prime: split.prime, children: sealed, shares })
    const own = holdfastMember(request)
    const holdfast = { ...(own.holdfast as object | undefined), shares: header.shares } // an object when present
    return await encryptJwe(
      { alg: 'dir', clevis: { pin: 'sss', sss: header.sss }, holdfast },
      split.secret,
      plaintext,
    )
  } finally {
    split.secret[Symbol.dispose]()
    for (const share of split.shares) share[Symbol.dispose]()
  }
}

/** The name a child of a threshold goes by in reports and share errors. */
function nameOf(pins: Pins, policy: Policy): string {
  if (policy.kind === 'pin') return `${policy.pin}:${pins.get(policy.pin).label(policy.config)}`
  return `${policy.threshold} of ${policy.children.length}`
}
