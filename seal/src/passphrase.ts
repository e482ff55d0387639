import { Secret } from '@holdfast/base'
import type { Jwe } from '@holdfast/crypto'
import { CompactEncrypt, compactDecrypt } from 'jose'
import { sealFault } from './faults.ts'
import { holdfastMember, malformed, pinHeader, printable } from './header.ts'
import type { Pin } from './pin.ts'

/** Asks for the passphrase that `label` names; undefined when nobody answers. */
export type AskPassphrase = (label: string, signal?: AbortSignal) => Promise<Secret | undefined>

/** PBKDF2-HMAC-SHA512 rounds of a new form; what a stored form asks for is bounded by the second. */
const rounds = 210_000
const mostRounds = 2_000_000

/**
 * A passphrase as PBES2-HS512+A256KW (RFC 7518 section 4.8). For vaults the native keyslot with
 * Argon2id is the better place; this is for everything else that is sealed.
 */
export function passphrasePin(ask?: AskPassphrase): Pin {
  const obtain = async (label: string, signal?: AbortSignal): Promise<Secret> => {
    const passphrase = await ask?.(label, signal)
    if (passphrase !== undefined && passphrase.length > 0) return passphrase
    throw sealFault('seal.passphrase_absent', `nobody gave the passphrase ${label}`, {
      hint: 'run in a terminal, or give it on standard input with --passphrase-file -',
    })
  }
  return {
    name: 'passphrase',
    local: true,
    interactive: true,
    label: (config) => labelOf(config),
    seal: async (plaintext, config, options) => {
      const { name, ...rest } = config
      if (Object.keys(rest).length > 0 || (name !== undefined && typeof name !== 'string')) {
        throw sealFault(
          'seal.policy_invalid',
          'passphrase knows only "name", a label for the prompt',
        )
      }
      using passphrase = await obtain(labelOf(config), options.signal)
      const own = name === undefined ? {} : { name }
      return await new CompactEncrypt(plaintext.reveal())
        .setProtectedHeader({
          alg: 'PBES2-HS512+A256KW',
          enc: 'A256GCM',
          clevis: { passphrase: own, pin: 'passphrase' },
          ...holdfastMember(options),
        })
        .setKeyManagementParameters({ p2c: rounds })
        .encrypt(passphrase.reveal())
    },
    open: async (jwe, signal) => {
      checkRounds(jwe)
      using passphrase = await obtain(labelOf(pinHeader(jwe, 'passphrase')), signal)
      return await openWith(jwe, passphrase)
    },
    inspect: (jwe) => ({ label: labelOf(pinHeader(jwe, 'passphrase')) }),
    policyOf: (jwe) => ({
      kind: 'pin',
      pin: 'passphrase',
      config: { ...pinHeader(jwe, 'passphrase') },
    }),
  }
}

/** Before anybody is asked: a form that costs minutes to try is refused. */
function checkRounds({ header }: Jwe): void {
  const { p2c } = header
  const known = typeof p2c === 'number' && Number.isInteger(p2c) && p2c >= 1_000
  if (!known || p2c > mostRounds) throw malformed('its number of PBKDF2 rounds is out of bounds')
}

async function openWith(jwe: Jwe, passphrase: Secret): Promise<Secret> {
  try {
    const { plaintext } = await compactDecrypt(compactOf(jwe), passphrase.reveal(), {
      keyManagementAlgorithms: ['PBES2-HS512+A256KW', 'PBES2-HS384+A192KW', 'PBES2-HS256+A128KW'],
      maxPBES2Count: mostRounds,
    })
    return Secret.take(plaintext)
  } catch (cause) {
    throw sealFault(
      'seal.passphrase_wrong',
      'the passphrase is wrong, or the sealed secret was altered',
      {
        cause: (cause as Error).name,
      },
    )
  }
}

/** The compact text of a parsed JWE, for jose. */
export function compactOf(jwe: Jwe): string {
  const parts = [jwe.encryptedKey, jwe.iv, jwe.ciphertext, jwe.tag]
  return [jwe.protected, ...parts.map((part) => part.toString('base64url'))].join('.')
}

function labelOf(config: Record<string, unknown>): string {
  return typeof config.name === 'string' ? printable(`passphrase ${config.name}`) : 'passphrase'
}
