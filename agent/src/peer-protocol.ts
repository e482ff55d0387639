import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import { canonicalJson, fromBase64url, type JsonObject, type Secret } from '@holdfast/base'
import { z } from 'zod'
import { agentFault } from './faults.ts'

// What a ward and its guardian say to each other, over HTTPS with certificates of the fleet at both
// ends.
//   GET  /peer/nonce                                        -> { nonce }
//   POST /peer/rec/{kid}  { ward, epoch, nonce, point, signature } -> { point }
//   POST /peer/probe/{kid} { ward, epoch, nonce, point, signature } -> { proof }
// A nonce is good once, for the node that fetched it, for a minute of the guardian's own time: nobody
// needs a right clock. The signature is the ward's identity key over [purpose, guardian, ward, epoch,
// kid, nonce, point], so a request is worth nothing at another guardian or a second time.
//
// A probe shows that the guardian still has the key without releasing anything. The ward sends a fresh
// E = e*G; the guardian answers HMAC(HKDF(x(s*E)), request); the ward compares with x(e*S). Sent the
// blinded point of a recovery instead, it gives a MAC and not the point that would open the secret.

const nodeId = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const pointSchema = z.strictObject({
  kty: z.literal('EC'),
  crv: z.enum(['P-256', 'P-384', 'P-521']),
  x: z.string().max(100),
  y: z.string().max(100),
})

export const peerRequestSchema = z.strictObject({
  ward: nodeId,
  epoch: z.number().int().min(1),
  nonce: nodeId,
  point: pointSchema,
  signature: z.string().max(200),
})
export type PeerRequest = z.infer<typeof peerRequestSchema>

/** What was sent to this node, if it has the agreed form. @throws Fault agent.request_malformed */
export function checkedRequest<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw agentFault('agent.request_malformed', 'the request does not have the agreed form')
}

export const nonceReplySchema = z.object({ nonce: nodeId })
export const pointReplySchema = z.object({ point: pointSchema })
export const proofReplySchema = z.object({ proof: nodeId })
export const errorReplySchema = z.object({
  error: z.object({
    code: z.string().max(100),
    message: z.string().max(2000),
    retryAfter: z.number().optional(),
    epochs: z.array(z.number().int()).max(1000).optional(),
  }),
})

/** What a ward signs. `guardian` is the node id of the one that is asked. */
export function requestBody(
  guardian: string,
  kid: string,
  { ward, epoch, nonce, point }: Omit<PeerRequest, 'signature'>,
): JsonObject {
  return { guardian, ward, epoch, kid, nonce, point }
}

export type PeerPurpose = 'peer-release' | 'peer-probe'

/** The answer to a probe; `shared` is the x coordinate that both ends compute. */
export function probeProof(shared: Secret, body: JsonObject): string {
  const key = hkdfSync('sha256', shared.reveal(), '', 'holdfast peer-probe 1', 32)
  return createHmac('sha256', new Uint8Array(key)).update(canonicalJson(body)).digest('base64url')
}

/** Compares two proofs in constant time. */
export function sameProof(a: string, b: string): boolean {
  const [left, right] = [fromBase64url(a, 'the proof'), fromBase64url(b, 'the proof')]
  return left.length === right.length && timingSafeEqual(left, right)
}
