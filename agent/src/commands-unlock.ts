import { createPublicKey, diffieHellman, type KeyObject } from 'node:crypto'
import { isFault, Secret } from '@holdfast/base'
import { decryptJwe, deriveContentKey, parseEcPublicJwk, parseJwe } from '@holdfast/crypto'
import type { CommandHandler } from './command-handler.ts'
import type { HandlerDeps } from './command-table.ts'
import { agentFault } from './faults.ts'

/**
 * Opens the vault with a pushed passphrase. It is never written down, not even sealed: the key that it
 * is sealed for lies on the same disk.
 */
export function unlockHandler({
  exchange,
  unlock,
  tell,
  report,
}: Pick<HandlerDeps, 'exchange' | 'unlock' | 'tell' | 'report'>): CommandHandler<'unlock'> {
  return {
    restart: 'interrupted',
    run: async ({ given }) => {
      using passphrase = openPush(given.sealed, exchange)
      try {
        await unlock(passphrase)
      } catch (error) {
        if (isFault(error, 'vault.passphrase_wrong')) await tell({ kind: 'wrong_key' })
        throw error
      }
      return { report: await report() }
    },
  }
}

/**
 * Opens a passphrase that was sealed for this node's exchange key (ECDH-ES, A256GCM).
 * @throws Fault agent.key_malformed
 */
export function openPush(sealed: string, exchange: KeyObject): Secret {
  try {
    const jwe = parseJwe(sealed)
    const { kty, crv, x, y } = parseEcPublicJwk(jwe.header.epk, 'epk')
    const publicKey = createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' })
    using shared = Secret.take(diffieHellman({ privateKey: exchange, publicKey }))
    using key = deriveContentKey(shared, jwe.header)
    return decryptJwe(jwe, key)
  } catch (cause) {
    throw agentFault('agent.key_malformed', 'the pushed key is not sealed for this node', {
      cause: isFault(cause) ? cause.message : 'it cannot be read',
      hint: "seal it for the exchange key on the node's card",
    })
  }
}
