import { createPublicKey } from 'node:crypto'
import { isFault, isObject, type JsonObject } from '@holdfast/base'
import {
  bareJwk,
  blind,
  decryptJwe,
  deriveContentKey,
  encryptJwe,
  type Jwe,
  parseEcPublicJwk,
  thumbprint,
} from '@holdfast/crypto'
import { keyId } from '@holdfast/link'
import type { Pin } from '@holdfast/seal'
import { z } from 'zod'
import { agentFault } from './faults.ts'
import { askPeer, lied, type PeerPlace, type WardIdentity } from './peer-client.ts'

// The `peer` pin: like `tang`, but the server is a guardian that keeps one key for this ward and epoch
// and answers only this ward's signed request. Sealing needs nobody: the guardian's key came by a
// signed order. Header: clevis.peer { guardian, addresses, identity, ward, epoch, adv: { keys } }.

const configSchema = z.strictObject({
  guardian: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  addresses: z.array(z.string().max(300).startsWith('https://')).min(1).max(8),
  /** PEM SubjectPublicKeyInfo of the guardian. */
  identity: z.string().max(4096),
  ward: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  epoch: z.number().int().min(1),
  adv: z.strictObject({ keys: z.array(z.record(z.string(), z.unknown())).length(1) }),
})
export type PeerConfig = z.infer<typeof configSchema>

/** `ward` is this node; without it secrets can be sealed and looked at, not opened. */
export function peerPin(ward?: WardIdentity): Pin {
  return {
    name: 'peer',
    local: false,
    interactive: false,
    label: (config) => `${String(config.guardian ?? 'peer').slice(0, 43)}`,
    seal: async (plaintext, config, options) => {
      const peer = parseConfig(config)
      const key = placeOf(peer).key
      const share = options.membership
      const header = {
        alg: 'ECDH-ES',
        clevis: { pin: 'peer', peer },
        kid: thumbprint(key),
        ...(share === undefined ? {} : { holdfast: { share } }),
      }
      const publicKey = createPublicKey({ key: { ...bareJwk(key) }, format: 'jwk' })
      return await encryptJwe(header, publicKey, plaintext)
    },
    open: async (jwe, signal) => {
      const config = readPeer(jwe)
      if (ward === undefined || ward.node !== config.ward)
        throw agentFault('agent.ward_unknown', `only node ${config.ward} may ask its guardians`)
      const place = placeOf(config)
      const attempt = blind(parseEcPublicJwk(jwe.header.epk, 'epk'), place.key)
      const reply = await askPeer(ward, place, attempt.request, signal)
      try {
        using shared = attempt.unblind(reply)
        using key = deriveContentKey(shared, jwe.header)
        return decryptJwe(jwe, key)
      } catch (error) {
        // The header is authentic as far as the order was; a key that does not fit is the guardian's.
        throw isFault(error) ? lied(place) : error
      }
    },
    inspect: (jwe) => {
      const { guardian, epoch, addresses } = readPeer(jwe)
      const key = placeOf(readPeer(jwe)).key
      const kid = thumbprint(key)
      return {
        label: guardian,
        ...(addresses[0] === undefined ? {} : { url: addresses[0] }),
        kid,
        keys: [{ thumbprint: kid, crv: key.crv, use: 'exchange' }],
        details: { guardian, epoch },
      }
    },
    policyOf: (jwe) => ({ kind: 'pin', pin: 'peer', config: readPeer(jwe) }),
  }
}

/** Where a sealed share's guardian is found, for a probe. @throws Fault agent.peer_sealed_malformed */
export function peerPlaceOf(jwe: Jwe): PeerPlace {
  return placeOf(readPeer(jwe))
}

function placeOf({ guardian, addresses, epoch, adv }: PeerConfig): PeerPlace {
  return { guardian, addresses, epoch, key: parseEcPublicJwk(adv.keys[0], 'the exchange key') }
}

/** @throws Fault agent.peer_policy_invalid */
function parseConfig(config: JsonObject): PeerConfig {
  const parsed = configSchema.safeParse(config)
  if (!parsed.success) throw invalid(z.prettifyError(parsed.error))
  const { identity, guardian } = parsed.data
  if (idOf(identity) !== guardian) throw invalid('the identity is not of the guardian')
  return parsed.data
}

function idOf(identity: string): string | undefined {
  try {
    return keyId(createPublicKey(identity))
  } catch {
    return undefined
  }
}

function readPeer(jwe: Jwe): PeerConfig {
  const { clevis } = jwe.header
  const parsed = configSchema.safeParse(isObject(clevis) ? clevis.peer : undefined)
  if (parsed.success) return parsed.data
  throw agentFault('agent.peer_sealed_malformed', 'the sealed share does not say whom to ask')
}

function invalid(reason: string): Error {
  return agentFault('agent.peer_policy_invalid', `the peer pin is not valid: ${reason}`)
}
