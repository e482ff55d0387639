import type { KeyObject } from 'node:crypto'
import { canonicalJson, type Fault, isFault, parseJson, Secret, systemClock } from '@holdfast/base'
import {
  curveOf,
  type EcPublicJwk,
  exchangeKey,
  generateEcKey,
  parseEcPublicJwk,
  pointOf,
  thumbprint,
  toBytes,
} from '@holdfast/crypto'
import { exchange, type OwnCertificate, pinnedTls, type Reply, signBody } from '@holdfast/link'
import type { z } from 'zod'
import { agentFault } from './faults.ts'
import {
  errorReplySchema,
  nonceReplySchema,
  type PeerPurpose,
  pointReplySchema,
  probeProof,
  proofReplySchema,
  requestBody,
  sameProof,
} from './peer-protocol.ts'

// The ward's side: asks one guardian. It connects only to the identity that the sealed secret names,
// at whichever of its addresses answers first.

/** How this node shows itself to its guardians. */
export interface WardIdentity {
  node: string
  identity: KeyObject
  own: OwnCertificate
  /** PEM certificate of the fleet's authority. */
  authority: string
  /** Where a guardian is in the tunnel, while there is one. */
  tunnelTo?: (guardian: string) => string | undefined
}

/** One guardian's part in one epoch. */
export interface PeerPlace {
  guardian: string
  /** `https://host:port`, all of them the same guardian. */
  addresses: readonly string[]
  epoch: number
  key: EcPublicJwk
}

/** Sends the blinded point and gives the guardian's answer. @throws Fault agent.guardian_*, agent.ward_* */
export async function askPeer(
  ward: WardIdentity,
  place: PeerPlace,
  point: EcPublicJwk,
  signal: AbortSignal,
): Promise<EcPublicJwk> {
  const reply = await ask(ward, place, 'peer-release', point, signal)
  const answer = read(pointReplySchema, reply.body, place)
  try {
    return parseEcPublicJwk(answer.point, 'the reply')
  } catch (cause) {
    throw replyInvalid(place, cause)
  }
}

/**
 * Asks a guardian to prove that it still has the key, which releases nothing.
 * @throws Fault agent.guardian_lied when it has another key
 */
export async function probePeer(
  ward: WardIdentity,
  place: PeerPlace,
  signal: AbortSignal,
): Promise<void> {
  const { crv } = place.key
  const ephemeral = generateEcKey(crv)
  const { x, y } = ephemeral
  const reply = await ask(ward, place, 'peer-probe', { kty: 'EC', crv, x, y }, signal)
  using own = exchangeKey(ephemeral)
  const shared = own.multiply(pointOf(place.key))
  using secret = Secret.take(toBytes(shared.x, curveOf(crv).size))
  const { proof } = read(proofReplySchema, reply.body, place)
  if (!sameProof(proof, probeProof(secret, reply.signed))) throw lied(place)
}

/** The fault for an answer that is not made with the key which the guardian gave for the epoch. */
export function lied({ guardian, epoch }: PeerPlace): Error {
  return agentFault(
    'agent.guardian_lied',
    `guardian ${guardian} answered with another key than that of epoch ${epoch}`,
    { hint: 'look at that machine; then move its wards to others' },
  )
}

/** Milliseconds for a request, at most: how long a guardian is waited for, the caller's signal says. */
const patience = 60_000

async function ask(
  ward: WardIdentity,
  place: PeerPlace,
  purpose: PeerPurpose,
  point: EcPublicJwk,
  signal: AbortSignal,
) {
  const { guardian, epoch, key } = place
  const { own, authority } = ward
  const tls = pinnedTls(guardian, { own, authority, timeout: patience })
  try {
    const inside = ward.tunnelTo?.(guardian)
    const { address, nonce } = await firstNonce(place, inside, tls, signal)
    const kid = thumbprint(key)
    const { kty, crv, x, y } = point
    const request = { ward: ward.node, epoch, nonce, point: { kty, crv, x, y } }
    const signed = requestBody(guardian, kid, request)
    const action = purpose === 'peer-release' ? 'rec' : 'probe'
    const reply = await exchange(`${address}/peer/${action}/${kid}`, {
      method: 'POST',
      body: canonicalJson({ ...request, signature: signBody(ward.identity, purpose, signed) }),
      tls,
      signal,
      timeout: patience,
      limit: 65_536,
    }).catch((error) => Promise.reject(unreachable(place, error)))
    return { body: checked(reply, place), signed }
  } finally {
    tls.destroy()
  }
}

/** How long the tunnel is given before the other addresses are tried too, in milliseconds. */
const headStart = 1_500

/**
 * A nonce from whichever address answers first; the others are given up. The tunnel begins, and the
 * addresses outside of it follow as soon as it fails, or when it takes long.
 */
async function firstNonce(
  place: PeerPlace,
  inside: string | undefined,
  tls: ReturnType<typeof pinnedTls>,
  signal: AbortSignal,
): Promise<{ address: string; nonce: string }> {
  const rest = new AbortController()
  const either = AbortSignal.any([signal, rest.signal])
  const attempt = async (text: string) => {
    const address = text.replace(/\/+$/, '')
    const shared = { tls, signal: either, timeout: patience }
    const options = { ...shared, method: 'GET', limit: 65_536 } as const
    const reply = await exchange(`${address}/peer/nonce`, options)
    return { address, nonce: read(nonceReplySchema, checked(reply, place), place).nonce }
  }
  const first = inside === undefined ? [] : [attempt(inside)]
  const failed = first.map((one) => one.then(() => systemClock.sleep(headStart, either), ignore))
  const late = [systemClock.sleep(first.length === 0 ? 0 : headStart, either), ...failed]
  for (const each of late) each.catch(ignore) // with no other address nobody waits for it
  const others = place.addresses.map(async (text) => {
    await Promise.race(late)
    return await attempt(text)
  })
  try {
    return await Promise.any([...first, ...others])
  } catch (error) {
    signal.throwIfAborted()
    const errors: unknown[] = error instanceof AggregateError ? error.errors : [error]
    // That it does not answer in the tunnel is no news to whoever also failed outside of it.
    throw unreachable(place, errors.find((each) => !isTunnelRefused(each)) ?? errors[0])
  } finally {
    rest.abort()
  }
}

const ignore = () => undefined

function isTunnelRefused(error: unknown): boolean {
  return isFault(error) && error.code === 'agent.guardian_tunnel_refused'
}

function checked({ status, body }: Reply, place: PeerPlace): unknown {
  let value: unknown
  try {
    value = parseJson(body, 'the reply', 65_536)
  } catch (cause) {
    throw replyInvalid(place, cause)
  }
  if (status === 200) return value
  const failure = errorReplySchema.safeParse(value)
  if (!failure.success) throw replyInvalid(place, failure.error)
  throw refusal(place, failure.data.error)
}

/** The guardian's own reason, with its name; only codes that it may use are passed on. */
function refusal(
  { guardian, epoch }: PeerPlace,
  error: z.infer<typeof errorReplySchema>['error'],
): Fault {
  const { code, message, retryAfter, epochs } = error
  const text = `guardian ${guardian}: ${message.replace(/\p{C}/gu, ' ').slice(0, 500)}`
  const details = { guardian, ...(retryAfter ? { retryAfter } : {}), ...(epochs ? { epochs } : {}) }
  const newest = Math.max(0, ...(epochs ?? []))
  if (code === 'agent.ward_key_absent' && newest > 0 && newest < epoch) {
    const back = `guardian ${guardian} has gone back to epoch ${newest}; this vault needs ${epoch}`
    const hint = 'it was restored from an old copy: give its wards new keys'
    return agentFault('agent.ward_key_absent', back, { hint, details })
  }
  return agentFault(isPeerCode(code) ? code : 'agent.guardian_refused', text, { details })
}

type AgentCode = Parameters<typeof agentFault>[0]

function isPeerCode(code: string): code is AgentCode {
  return /^agent\.(guardian|ward|nonce|signature|request)_/.test(code) && code in agentFault.codes
}

function read<T>(schema: z.ZodType<T>, value: unknown, place: PeerPlace): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw replyInvalid(place, parsed.error)
}

function replyInvalid({ guardian }: PeerPlace, cause: unknown): Fault {
  return agentFault('agent.guardian_reply_invalid', `guardian ${guardian} sent an invalid reply`, {
    cause,
  })
}

function unreachable({ guardian }: PeerPlace, cause: unknown): unknown {
  if (!isFault(cause) || cause.code !== 'link.unreachable') return cause
  const text = `guardian ${guardian} cannot be reached: ${cause.message}`
  return agentFault('agent.guardian_unreachable', text, { cause })
}
