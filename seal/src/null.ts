import { isObject, type JsonObject, Secret } from '@holdfast/base'
import { decryptJwe, encryptJwe, type Jwe } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import { holdfastMember, malformed, pinHeader } from './header.ts'
import type { Pin, SealOptions } from './pin.ts'

/**
 * clevis's `null` pin: the key lies beside the secret, so it protects nothing. It pads thresholds
 * and serves tests; `{"fail":true}` makes a form that never opens.
 */
export function nullPin(): Pin {
  return {
    name: 'null',
    local: true,
    interactive: false,
    label: (config) => (config.fail === true ? 'null (always fails)' : 'null'),
    seal: async (plaintext, config, options) => {
      const { fail = false, ...rest } = config
      if (typeof fail !== 'boolean' || Object.keys(rest).length > 0) {
        throw sealFault('seal.policy_invalid', 'null knows only "fail": true or false')
      }
      using key = Secret.random(32)
      const own = fail ? {} : { jwk: contentKeyJwk(key) }
      return await encryptJwe(localHeader('null', own, options), key, plaintext)
    },
    open: async (jwe) => {
      using key = readContentKey(pinHeader(jwe, 'null').jwk)
      return decryptJwe(jwe, key)
    },
    inspect: (jwe) => ({ label: fails(jwe) ? 'null (always fails)' : 'null' }),
    policyOf: (jwe) => ({ kind: 'pin', pin: 'null', config: fails(jwe) ? { fail: true } : {} }),
  }
}

function fails(jwe: Jwe): boolean {
  return !('jwk' in pinHeader(jwe, 'null'))
}

/** The protected header of clevis's pins that agree on a content key elsewhere. */
export function localHeader(pin: string, own: JsonObject, options: SealOptions) {
  return { alg: 'dir', clevis: { [pin]: own, pin }, ...holdfastMember(options) }
}

/** A content key as `jose jwk gen -i '{"alg":"A256GCM"}'` writes it. */
export function contentKeyJwk(key: Secret): JsonObject {
  const k = key.reveal().toString('base64url')
  return { alg: 'A256GCM', k, key_ops: ['encrypt', 'decrypt'], kty: 'oct' }
}

/** @throws Fault seal.sealed_malformed */
export function readContentKey(jwk: unknown): Secret {
  const k = isObject(jwk) ? jwk.k : undefined
  const key = typeof k === 'string' ? Buffer.from(k, 'base64url') : Buffer.alloc(0)
  if (key.length !== 32) throw malformed('it carries no content key')
  return Secret.take(key)
}
