import { createHash, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { DurableRecord, isFault, Secret } from '@holdfast/base'
import { decryptJwe, deriveContentKey, parseEcPublicJwk, parseJwe } from '@holdfast/crypto'
import type { UnlockAnswer } from '@holdfast/protocol/locked-state'
import type { Unlocked } from '@holdfast/vault'
import { z } from 'zod'
import { agentFault } from './faults.ts'
import { isEnd } from './life-end.ts'
import type { LifeEvent } from './life-event.ts'
import type { LifeState } from './life-state.ts'

// The one way by which a pushed key opens the vault, whether it came as a command or to the peer port.
// Pushes are tried one after another; a wrong one is counted and changes nothing; one that has opened
// is used up, so that who has recorded it cannot undo a later panic 1 with it.

export interface UnlockDeskDeps {
  directory: string
  exchange: KeyObject
  state: () => LifeState
  /** @throws Fault vault.passphrase_wrong */
  open: (passphrase: Secret, renew: boolean) => Promise<Unlocked>
  close: () => Promise<void>
  tell: (event: LifeEvent) => Promise<boolean>
}

const usedSchema = z.strictObject({ v: z.literal(1), used: z.array(z.string().max(64)).max(256) })

export class UnlockDesk {
  readonly #deps: UnlockDeskDeps
  readonly #used: DurableRecord<z.infer<typeof usedSchema>>
  #last: Promise<unknown> = Promise.resolve()

  constructor(deps: UnlockDeskDeps) {
    this.#deps = deps
    this.#used = new DurableRecord(join(deps.directory, 'pushes.json'), (value) =>
      usedSchema.parse(value),
    )
  }

  /**
   * Opens the vault with a passphrase that was sealed for this node's exchange key.
   * @throws Fault agent.key_malformed, agent.push_replayed, agent.push_refused,
   *   vault.passphrase_wrong
   */
  async push(sealed: string): Promise<UnlockAnswer> {
    const turn = this.#last.then(() => this.#push(sealed))
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  async #push(sealed: string): Promise<UnlockAnswer> {
    const { exchange, open, close, tell, state } = this.#deps
    requireVault(state())
    const digest = createHash('sha256').update(sealed).digest('base64url')
    const used = (await this.#used.read())?.used ?? []
    if (used.includes(digest)) {
      // Sent twice because the answer was lost.
      if (state().phase === 'open') return { phase: 'open' }
      throw agentFault('agent.push_replayed', 'this very push has opened the vault before', {
        hint: 'seal the passphrase anew',
      })
    }
    using passphrase = openPush(sealed, exchange)
    try {
      const { genesis, task } = state()
      const adopts = task?.kind === 'enrol' && task.step === 'adopt'
      const { keyslot } = await open(passphrase, genesis || adopts)
      await this.#used.write({ v: 1, used: [...used, digest].slice(-256) })
      await tell({ kind: 'opened', by: 'operator' })
      if (state().phase === 'locked') {
        // An end was ordered while it was being opened.
        await close()
        requireVault(state())
      }
      return { phase: state().phase, ...(keyslot === undefined ? {} : { keyslot }) }
    } catch (error) {
      if (isFault(error, 'vault.passphrase_wrong')) await tell({ kind: 'wrong_key' })
      throw error
    }
  }
}

/** A key is of use while there is a vault that may be opened. */
function requireVault({ phase, task }: LifeState): void {
  const enrolling = task?.kind === 'enrol' && (task.step === 'adopt' || task.step === 'reopen')
  const usable = phase === 'locked' || phase === 'open' || (phase === 'enrolling' && enrolling)
  if (usable && !isEnd(task)) return
  const doing = isEnd(task) ? `it is about to end (${task.kind})` : `it is in phase ${phase}`
  throw agentFault('agent.push_refused', `this node takes no key now: ${doing}`)
}

/**
 * Opens a passphrase that was sealed for this node's exchange key (ECDH-ES, A256GCM).
 * @throws Fault agent.key_malformed
 */
function openPush(sealed: string, exchange: KeyObject): Secret {
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
      hint: 'seal it for the exchange key that the node shows',
    })
  }
}
