import { isUtf8 } from 'node:buffer'
import { isObject, type JsonObject, toBase64url } from '@holdfast/base'
import { type EcPublicJwk, type EncodedPoint, encodedPointOf, isCurveName } from '@holdfast/crypto'
import type { Snapshot } from './snapshot.ts'
import { emptyReply, recoveryReply } from './wire.ts'

// One recovery, from request body to reply. The order of the checks is tangd's, because it decides
// which status a client sees. Deliberately stricter than tangd 11: coordinates of p or more,
// coordinates longer than the field, and a private member in the request are refused with 400.

export interface Recovery {
  readonly status: number
  /** The whole HTTP reply. */
  readonly reply: string
  /** The exchange key used, by SHA-256 thumbprint, when one was found. */
  readonly kid?: string
  readonly crv?: string
}

const refusal = (status: number): Recovery => ({ status, reply: emptyReply(status) })
const malformed = refusal(400)
const forbidden = refusal(403)
const unknown = refusal(404)
const unusable = refusal(500)

/** Answers `POST /rec/{thumbprint}` for the main set or a prefix. */
export function recover(
  snapshot: Snapshot,
  spaceName: string,
  thumbprint: string,
  body: Uint8Array,
): Recovery {
  const request = readBody(body)
  if (request === undefined) return malformed
  if (!mayDeriveKey(request)) return forbidden
  if (request.kty !== 'EC' || 'd' in request) return malformed
  if ('alg' in request && request.alg !== 'ECMR') return malformed
  if (!snapshot.canSign) return unusable
  const key = snapshot.spaces.get(spaceName)?.keys.get(thumbprint)
  if (key === undefined) return unknown
  if (key === 'forbidden') return forbidden
  const { kid, crv } = key.stored
  const point = readPoint(request, crv)
  if (point === undefined) return { ...malformed, kid, crv }
  const { x, y } = key.exchange.multiplyEncoded(point)
  const reply = recoveryReply(crv, toBase64url(x), toBase64url(y))
  return { status: 200, reply, kid, crv }
}

function readBody(body: Uint8Array): JsonObject | undefined {
  if (!isUtf8(body)) return undefined
  try {
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** As jose 11 judges permissions: none stated allows all, otherwise deriveKey must be listed. */
function mayDeriveKey(request: JsonObject): boolean {
  if (!('use' in request) && !('key_ops' in request)) return true
  if ('use' in request && typeof request.use !== 'string') return false
  const operations = request.key_ops
  return Array.isArray(operations) && operations.includes('deriveKey')
}

function readPoint(request: JsonObject, crv: string): EncodedPoint | undefined {
  const { x, y } = request
  if (request.crv !== crv || !isCurveName(crv)) return undefined
  if (typeof x !== 'string' || typeof y !== 'string') return undefined
  try {
    return encodedPointOf({ kty: 'EC', crv, x, y } satisfies EcPublicJwk)
  } catch {
    return undefined
  }
}
