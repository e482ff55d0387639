import { createPublicKey, diffieHellman, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { DurableRecord, isFault, messageOf, Secret } from '@holdfast/base'
import { decryptJwe, deriveContentKey, parseEcPublicJwk, parseJwe } from '@holdfast/crypto'
import type { CommandFrame } from '@holdfast/link'
import type { AgentFrame, NodeReport } from '@holdfast/protocol/frames'
import { z } from 'zod'
import { agentFault } from './faults.ts'
import type { LifeEvent } from './life.ts'

// What a node does when it is told to. A command may come twice and is acted on once: its result is
// written down before it is sent, and sent again when the command comes again.

export type CommandResult = Extract<AgentFrame, { kind: 'result' }>

export interface CommandDeps {
  directory: string
  exchange: KeyObject
  report: () => Promise<NodeReport>
  rehearse: () => Promise<Record<string, unknown>>
  /** Tries a pushed passphrase. @throws Fault vault.passphrase_wrong */
  unlock: (passphrase: Secret) => Promise<void>
  tell: (event: LifeEvent) => Promise<boolean>
  /** The command that is ending this node's life, if one is. */
  ending: () => string | undefined
}

const recordSchema = z.strictObject({
  v: z.literal(1),
  results: z.array(
    z.strictObject({
      kind: z.literal('result'),
      command: z.string(),
      ok: z.boolean(),
      code: z.string().optional(),
      message: z.string().optional(),
      data: z.record(z.string(), z.unknown()).optional(),
    }),
  ),
})
/** Finished commands that are remembered; the coordinator does not repeat older ones. */
const mostResults = 200

const unlockSchema = z.object({ sealed: z.string().max(20_000) })

export class Commands {
  readonly #deps: CommandDeps
  readonly #record: DurableRecord<z.infer<typeof recordSchema>>

  constructor(deps: CommandDeps) {
    this.#deps = deps
    this.#record = new DurableRecord(join(deps.directory, 'commands.json'), (value) =>
      recordSchema.parse(value),
    )
  }

  /** Carries a checked command out; undefined when its result comes later, from `finish`. */
  async carryOut(frame: CommandFrame): Promise<CommandResult | undefined> {
    const done = (await this.#results()).find(({ command }) => command === frame.id)
    if (done !== undefined) return done as CommandResult // written by this class
    try {
      const data = await this.#act(frame)
      if (data === undefined) return undefined
      return await this.finish({ kind: 'result', command: frame.id, ok: true, data })
    } catch (error) {
      const code = isFault(error) ? error.code : 'agent.internal'
      const message = messageOf(error).slice(0, 2000)
      return await this.finish({ kind: 'result', command: frame.id, ok: false, code, message })
    }
  }

  /** Writes a result down. */
  async finish(result: CommandResult): Promise<CommandResult> {
    const results = await this.#results()
    if (!results.some(({ command }) => command === result.command))
      await this.#record.write({ v: 1, results: [...results, result].slice(-mostResults) })
    return result
  }

  async #results() {
    return (await this.#record.read())?.results ?? []
  }

  async #act(frame: CommandFrame): Promise<Record<string, unknown> | undefined> {
    const { report, rehearse } = this.#deps
    switch (frame.command) {
      case 'status':
        return { report: await report() }
      case 'rehearse':
        return await rehearse()
      case 'unlock':
        await this.#unlock(frame)
        return { report: await report() }
      case 'leave':
      case 'reset':
        await this.#begin(frame)
        return undefined
      default:
        throw agentFault('agent.command_unknown', `this agent does not know ${frame.command}`)
    }
  }

  /** Ends begin here and are answered when they are over. */
  async #begin({ id, command }: CommandFrame): Promise<void> {
    const { tell, ending } = this.#deps
    if (ending() === id) return
    const kind = command === 'leave' ? 'leave' : 'wipe'
    if (await tell({ kind, command: id })) return
    throw agentFault('agent.command_refused', `${command} cannot begin in this phase`)
  }

  async #unlock(frame: CommandFrame): Promise<void> {
    const { sealed } = unlockSchema.parse(frame.arguments)
    using passphrase = openPush(sealed, this.#deps.exchange)
    try {
      await this.#deps.unlock(passphrase)
    } catch (error) {
      if (isFault(error, 'vault.passphrase_wrong')) await this.#deps.tell({ kind: 'wrong_key' })
      throw error
    }
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
