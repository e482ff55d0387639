import {
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { canonicalJson, fromBase64url, isFault, parseJson, Secret } from '@holdfast/base'
import { decryptJwe, encryptJwe, parseJwe } from '@holdfast/crypto'
import { linkFault } from './faults.ts'

// The sealed channel of an enrolment. Both ends make an X25519 key for this one exchange and derive
//
//   HKDF-SHA256(secret: X25519(ours, theirs) ‖ code, salt: SHA-256(purpose ‖ C ‖ N), info: direction)
//
// for AES-256-GCM. Only who knows the code on the node's console can read or write, so a message
// that opens proves its sender. The code has 80 random bits: guessing it from a recorded exchange is
// out of reach, and because of the exchange keys a code that leaks later opens nothing recorded.
// Why this and not a PAKE: docs/decisions/0010-enrolment-channel.md.

/** Crockford's base 32: no letters that read like digits. */
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const codeBytes = 10
const purpose = 'holdfast enrolment 1'

/** What is sent which way; a message of one direction does not open in another. */
export type Direction = 'card' | 'offer' | 'receipt'

/** A new code: 80 random bits. */
export function makeCode(random: (length: number) => Uint8Array = randomBytes): Secret {
  return Secret.copy(random(codeBytes))
}

/** The code as people read and type it: four groups of four characters. */
export function formatCode(code: Secret): string {
  const bits = [...code.reveal()].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  const letters = bits.match(/.{5}/g)?.map((group) => alphabet[Number.parseInt(group, 2)]) ?? []
  return letters.join('').replace(/(.{4})(?=.)/g, '$1-')
}

/** Reads a typed code, generous with case, spaces, dashes and look-alikes. @throws Fault link.code_malformed */
export function parseCode(text: string): Secret {
  const letters = text.toUpperCase().replace(/[\s-]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1')
  const values = [...letters].map((letter) => alphabet.indexOf(letter))
  if (values.length !== (codeBytes * 8) / 5 || values.includes(-1)) {
    throw linkFault('link.code_malformed', 'an enrolment code has 16 letters and digits', {
      hint: "read it again from the node's console",
    })
  }
  const bits = values.map((value) => value.toString(2).padStart(5, '0')).join('')
  const bytes = bits.match(/.{8}/g)?.map((group) => Number.parseInt(group, 2)) ?? []
  return Secret.take(Uint8Array.from(bytes))
}

/** One end's X25519 key pair for one exchange. `shown` is the public key, base64url of 32 bytes. */
export interface ExchangePair {
  readonly shown: string
  readonly privateKey: KeyObject
}

/** A fresh key pair, for one exchange only. */
export function makePair(): ExchangePair {
  const { privateKey, publicKey } = generateKeyPairSync('x25519')
  const { x } = publicKey.export({ format: 'jwk' })
  return { shown: x ?? '', privateKey }
}

/** The two public keys of an exchange, the coordinator's first. */
export interface Exchange {
  coordinator: string
  node: string
}

/** One exchange as one end sees it; the other end's is equal if it has the same code. */
export class SealedChannel {
  readonly exchange: Exchange
  readonly #secret: Secret

  private constructor(exchange: Exchange, secret: Secret) {
    this.exchange = exchange
    this.#secret = secret
  }

  /** @throws Fault link.enrolment_refused when the other end's public key is not one */
  static derive(own: ExchangePair, theirs: string, side: keyof Exchange, code: Secret) {
    const exchange =
      side === 'node'
        ? { coordinator: theirs, node: own.shown }
        : { coordinator: own.shown, node: theirs }
    const shared = agree(own.privateKey, theirs)
    const secret = Secret.take(Buffer.concat([shared, code.reveal()]))
    shared.fill(0)
    return new SealedChannel(exchange, secret)
  }

  /** Encrypts a document to a compact JWE (`dir`, A256GCM). */
  async seal(direction: Direction, document: unknown): Promise<string> {
    using key = this.#key(direction)
    using plaintext = Secret.copy(canonicalJson(document))
    return await encryptJwe({ alg: 'dir', holdfast: `enrolment-${direction}` }, key, plaintext)
  }

  /** @throws Fault link.enrolment_wrong_code when the sender had another code, or bytes changed */
  open(direction: Direction, sealed: string): unknown {
    using key = this.#key(direction)
    try {
      using plaintext = decryptJwe(parseJwe(sealed), key)
      return parseJson(plaintext.reveal().toString('utf8'), direction)
    } catch (cause) {
      throw linkFault(
        'link.enrolment_wrong_code',
        'the code is wrong, or somebody is in between: the message does not open',
        { cause, hint: "type the code that the node's console shows now" },
      )
    }
  }

  #key(direction: Direction): Secret {
    const { coordinator, node } = this.exchange
    const salt = createHash('sha256').update(`${purpose}\n${coordinator}\n${node}`).digest()
    return Secret.take(
      new Uint8Array(
        hkdfSync('sha256', this.#secret.reveal(), salt, `${purpose} ${direction}`, 32),
      ),
    )
  }
}

function agree(privateKey: KeyObject, theirs: string): Buffer {
  try {
    if (fromBase64url(theirs).length !== 32) throw new RangeError('not 32 bytes')
    const jwk = { kty: 'OKP', crv: 'X25519', x: theirs }
    // OpenSSL refuses points of small order: their shared secret would be zero.
    return diffieHellman({ privateKey, publicKey: createPublicKey({ key: jwk, format: 'jwk' }) })
  } catch (cause) {
    throw linkFault('link.enrolment_refused', "the other end's exchange key is not usable", {
      cause: isFault(cause) ? cause.message : cause,
    })
  }
}

/** Wrong offers that a node has seen under its present code. */
export interface Attempts {
  wrong: number
}

/** Wrong offers after which the code is replaced. */
export const mostAttempts = 5

/** Counts a wrong offer. `rotate` says that the code must be replaced, which starts from nothing. */
export function countWrong(attempts: Attempts): { attempts: Attempts; rotate: boolean } {
  const wrong = attempts.wrong + 1
  return wrong >= mostAttempts
    ? { attempts: { wrong: 0 }, rotate: true }
    : { attempts: { wrong }, rotate: false }
}
