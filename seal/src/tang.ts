import { createPublicKey } from 'node:crypto'
import { canonicalJson, isObject, parseJson } from '@holdfast/base'
import {
  type AnyJwk,
  bareJwk,
  blind,
  decryptJwe,
  deriveContentKey,
  type EcPublicJwk,
  encryptJwe,
  type Jwe,
  parseEcPublicJwk,
  thumbprint,
  thumbprints,
} from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import { holdfastMember, malformed, pinHeader, printable, stringMember } from './header.ts'
import { checkedUrl, type Fetch, type HttpReply } from './http.ts'
import type { KnownKey, Pin, PinFacts } from './pin.ts'
import {
  type ConfirmTrust,
  nameOf,
  parseTangConfig,
  type TangConfig,
  trustedAdvertisement,
} from './tang-trust.ts'

export interface TangPinDeps {
  fetch: Fetch
  /** Without it nobody is asked: the policy must pin the server's key. */
  confirm?: ConfirmTrust
}

/** The `tang` pin: byte-compatible with clevis's JWE, McCallum-Relyea over HTTP. */
export function tangPin({ fetch, confirm }: TangPinDeps): Pin {
  return {
    name: 'tang',
    local: false,
    interactive: false,
    label: (config) => String(config.url ?? 'tang'),
    seal: async (plaintext, config, options) => {
      const tang = parseTangConfig(config)
      checkedUrl(tang.url)
      const advertisement = await trustedAdvertisement(tang, {
        fetch,
        ...(confirm === undefined ? {} : { confirm }),
        known: vouching(options.known ?? [], tang),
        signal: options.signal ?? AbortSignal.timeout(20_000),
      })
      const key = chooseExchangeKey(advertisement.exchangeKeys, tang.kid, tang.url)
      const header = {
        alg: 'ECDH-ES',
        clevis: { pin: 'tang', tang: { adv: { keys: advertisement.keys }, url: tang.url } },
        kid: thumbprint(key),
        ...holdfastMember(options),
      }
      const publicKey = createPublicKey({ key: { ...bareJwk(key) }, format: 'jwk' })
      return await encryptJwe(header, publicKey, plaintext)
    },
    open: async (jwe, signal) => {
      const { url, kid, exchangeKey } = readTang(jwe)
      const epk = parseEcPublicJwk(jwe.header.epk, 'epk')
      const attempt = blind(epk, exchangeKey)
      const reply = await fetch(`${url.replace(/\/+$/, '')}/rec/${kid}`, {
        method: 'POST',
        body: canonicalJson(attempt.request),
        contentType: 'application/jwk+json',
        signal,
      })
      using shared = attempt.unblind(readReply(reply, url, kid))
      using key = deriveContentKey(shared, jwe.header)
      return decryptJwe(jwe, key)
    },
    inspect: tangFacts,
    policyOf: (jwe) => {
      const { url, keys, kid } = readTang(jwe)
      const signing = keys.find((key) => useOf(key) === 'signing' && isEc(key))
      const exchange = keys.filter((key) => useOf(key) === 'exchange' && isEc(key))
      return {
        kind: 'pin',
        pin: 'tang',
        config: {
          url,
          ...(signing === undefined ? {} : { thp: thumbprint(signing) }),
          // A choice that was not the server's first offer was somebody's decision: keep it.
          ...(exchange[0] !== undefined && thumbprint(exchange[0]) !== kid ? { kid } : {}),
        },
      }
    },
  }
}

/** All keys that a `tang` sealed form stores: what later advertisements may be trusted by. */
export function storedKeys(jwe: Jwe): KnownKey[] {
  const { url, keys } = readTang(jwe)
  return keys.map((key) => ({ url, key }))
}

/**
 * Of all known keys those that may vouch for this server: its own. Another server's key must not,
 * or one stolen key would stand for all of them; unless the policy itself names it, which is how a
 * server keeps its trust when it moves to another address.
 */
function vouching(known: readonly KnownKey[], { url, thp = '' }: TangConfig): AnyJwk[] {
  const same = (other: string) => other.replace(/\/+$/, '') === url.replace(/\/+$/, '')
  return known
    .filter(
      (entry) => same(entry.url) || (nameOf(entry.key) && thumbprints(entry.key).includes(thp)),
    )
    .map((entry) => entry.key)
}

function chooseExchangeKey(
  keys: readonly EcPublicJwk[],
  kid: string | undefined,
  url: string,
): EcPublicJwk {
  const found = keys.find((key) => kid === undefined || thumbprints(key).includes(kid))
  if (found !== undefined) return found
  throw sealFault(
    'seal.server_key_unknown',
    `key server ${url} does not offer exchange key ${kid}`,
    {
      hint: `it offers ${keys.map((key) => thumbprint(key)).join(', ')}`,
    },
  )
}

interface TangForm {
  url: string
  kid: string
  keys: AnyJwk[]
  exchangeKey: EcPublicJwk
}

function readTang(jwe: Jwe): TangForm {
  const tang = pinHeader(jwe, 'tang')
  const url = stringMember(tang, 'url', 'the tang header')
  const kid = stringMember(jwe.header, 'kid', 'the header')
  if (!/^[\w-]{1,100}$/.test(kid)) throw malformed('its kid is not a thumbprint')
  const adv = tang.adv
  const list: unknown = isObject(adv) ? adv.keys : undefined
  if (!Array.isArray(list) || list.length > 200) throw malformed('its advertisement has no keys')
  const keys = list.map((key: unknown) => {
    if (!isObject(key) || typeof key.kty !== 'string') throw malformed('a stored key has no type')
    return { ...key, kty: key.kty }
  })
  const found = keys.find((key) => nameOf(key) !== undefined && thumbprints(key).includes(kid))
  if (found === undefined) throw malformed('its kid is not in the stored advertisement')
  return { url, kid, keys, exchangeKey: parseEcPublicJwk(found, 'the exchange key') }
}

function readReply(reply: HttpReply, url: string, kid: string): EcPublicJwk {
  if (reply.status === 404) {
    throw sealFault('seal.server_refused', `key server ${url} no longer has exchange key ${kid}`, {
      hint: 'the key was retired or this is another server; restore the key from a backup or open another way, then rekey',
    })
  }
  if (reply.status < 200 || reply.status > 299) {
    const wait = reply.retryAfter === undefined ? {} : { retryAfter: reply.retryAfter }
    throw sealFault('seal.server_refused', `key server ${url} answered ${reply.status}`, {
      details: wait,
    })
  }
  try {
    return parseEcPublicJwk(parseJson(reply.body, 'the reply', 65_536), 'the reply')
  } catch (cause) {
    throw sealFault('seal.server_reply_invalid', `key server ${url} sent an invalid reply`, {
      cause,
    })
  }
}

function isEc(key: AnyJwk): boolean {
  return key.kty === 'EC' && nameOf(key) !== undefined
}

function useOf(key: AnyJwk): 'exchange' | 'signing' | 'other' {
  const operations = key.key_ops
  const list: unknown[] = Array.isArray(operations) ? operations : []
  if (list.includes('deriveKey')) return 'exchange'
  return list.includes('verify') ? 'signing' : 'other'
}

function tangFacts(jwe: Jwe): PinFacts {
  const { url, kid, keys } = readTang(jwe)
  return {
    label: printable(url),
    url,
    kid,
    keys: keys.map((key) => ({
      thumbprint: nameOf(key) ?? '',
      crv: String(key.crv ?? key.kty),
      use: useOf(key),
    })),
  }
}
