import { isObject, type JsonObject } from '@holdfast/base'
import {
  type Advertisement,
  type AnyJwk,
  isSignedBy,
  mayDo,
  thumbprint,
  verifyAdvertisement,
} from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import type { Fetch } from './http.ts'

// Trust in a key server. An advertisement is believed when one of these holds, and never otherwise:
//   1. the policy pins a thumbprint (`thp`) and that key signed it;
//   2. the policy brings the advertisement itself (`adv`), handed over by a trusted way;
//   3. a key known from an earlier, trusted advertisement signed it (rotation);
//   4. a person at the terminal confirmed its thumbprints.
// There is no switch that turns this off.

/** Asks a person whether these signing-key thumbprints are the key server's. */
export type ConfirmTrust = (url: string, thumbprints: readonly string[]) => Promise<boolean>

/** A `tang` pin's configuration, as clevis has it, and `kid` to choose one exchange key. */
export interface TangConfig {
  url: string
  /** Thumbprint of a signing key, SHA-256 or SHA-1, base64url. */
  thp?: string
  /** The advertisement itself: a JWS object. */
  adv?: JsonObject
  /** Thumbprint of the exchange key to bind to; default the first advertised. */
  kid?: string
}

export interface TrustOptions {
  fetch: Fetch
  confirm?: ConfirmTrust
  /** Keys that vouch for this server's next ones. */
  known?: readonly AnyJwk[]
  signal: AbortSignal
}

/**
 * Obtains the advertisement that a configuration asks for and establishes trust in it.
 * @throws Fault seal.trust_required, seal.trust_refused, seal.server_*, crypto.advertisement_*
 */
export async function trustedAdvertisement(
  config: TangConfig,
  options: TrustOptions,
): Promise<Advertisement> {
  const { known = [] } = options
  if (config.adv !== undefined) {
    const given = await verifyAdvertisement(config.adv, known)
    if (config.thp !== undefined) requireThumbprint(given, config, known)
    return given
  }
  const fetched = await fetchAdvertisement(config, options)
  if (config.thp !== undefined) {
    requireThumbprint(fetched, config, known)
    return fetched
  }
  const trusted = known.filter((key) => mayDo(key, 'verify')).flatMap((key) => nameOf(key) ?? [])
  if (isSignedBy(fetched, trusted, known)) return fetched
  await confirmOrRefuse(config.url, fetched, options)
  return fetched
}

/**
 * Fetches `/adv/THP`, which also carries the signature of a rotated key, or `/adv` where no
 * thumbprint is known or the server no longer has that key.
 */
export async function fetchAdvertisement(
  config: { url: string; thp?: string },
  options: Pick<TrustOptions, 'fetch' | 'signal' | 'known'>,
): Promise<Advertisement> {
  const base = config.url.replace(/\/+$/, '')
  const asked = config.thp ?? signingThumbprint(options.known)
  const paths = asked === undefined ? ['/adv'] : [`/adv/${asked}`, '/adv']
  for (const path of paths) {
    const reply = await options.fetch(`${base}${path}`, { method: 'GET', signal: options.signal })
    if (reply.status === 200) return await verifyAdvertisement(reply.body, options.known)
    if (reply.status !== 404) {
      throw sealFault(
        'seal.server_refused',
        `key server ${base} answered ${reply.status} to GET ${path}`,
      )
    }
  }
  throw sealFault('seal.server_refused', `key server ${base} has no advertisement`, {
    hint: `is ${base} a Tang server? try: curl ${base}/adv`,
  })
}

function signingThumbprint(known: readonly AnyJwk[] = []): string | undefined {
  const key = known.find((candidate) => mayDo(candidate, 'verify'))
  return key === undefined ? undefined : nameOf(key)
}

/** The SHA-256 thumbprint, or undefined for a key that has none, like a tangd's stripped HMAC key. */
export function nameOf(key: AnyJwk): string | undefined {
  try {
    return thumbprint(key)
  } catch {
    return undefined
  }
}

function requireThumbprint(
  advertisement: Advertisement,
  config: TangConfig,
  known: readonly AnyJwk[],
): void {
  if (isSignedBy(advertisement, [config.thp ?? ''], known)) return
  const seen = advertisement.signingKeys.map((key) => thumbprint(key)).join(', ')
  throw sealFault(
    'seal.trust_refused',
    `the key server ${config.url} is not the trusted one: ${config.thp} did not sign its advertisement`,
    {
      hint: `it shows ${seen}; if the keys were rotated, compare with the server's own list and put the new thumbprint into the policy`,
      details: { url: config.url, expected: config.thp, seen },
    },
  )
}

async function confirmOrRefuse(
  url: string,
  advertisement: Advertisement,
  { confirm }: TrustOptions,
): Promise<void> {
  const seen = advertisement.signingKeys.map((key) => thumbprint(key))
  if (confirm === undefined) {
    throw sealFault('seal.trust_required', `no trust in key server ${url} has been established`, {
      hint: `after comparing it at the server, put "thp":"${seen[0]}" into the policy, or bring its advertisement as "adv"`,
      details: { url, seen },
    })
  }
  if (await confirm(url, seen)) return
  throw sealFault('seal.trust_refused', `the keys of ${url} were not confirmed`)
}

/** Checks a `tang` configuration. @throws Fault seal.policy_invalid */
export function parseTangConfig(config: JsonObject): TangConfig {
  const { url, thp, adv, kid, ...rest } = config
  const [extra] = Object.keys(rest)
  if (extra !== undefined) throw invalid(`tang does not know the member "${extra}"`)
  if (typeof url !== 'string') throw invalid('tang needs "url", the address of a key server')
  if (thp !== undefined && (typeof thp !== 'string' || !/^[\w-]{27,86}$/.test(thp))) {
    throw invalid('"thp" is not a thumbprint')
  }
  if (kid !== undefined && typeof kid !== 'string') throw invalid('"kid" is not a thumbprint')
  if (adv !== undefined && !isObject(adv)) throw invalid('"adv" is not an advertisement object')
  return {
    url,
    ...(thp === undefined ? {} : { thp }),
    ...(adv === undefined ? {} : { adv }),
    ...(kid === undefined ? {} : { kid }),
  }
}

function invalid(reason: string): Error {
  return sealFault('seal.policy_invalid', `the policy is not valid: ${reason}`)
}
