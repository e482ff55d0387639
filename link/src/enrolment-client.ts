import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { canonicalJson, isFault, type JsonObject, parseJson, type Secret } from '@holdfast/base'
import { type Enrolment, type NodeCard, nodeCardSchema } from '@holdfast/protocol/frames'
import { z } from 'zod'
import { enrolmentPort } from './enrolment-port.ts'
import { exchange } from './exchange.ts'
import { linkFault } from './faults.ts'
import { keyId } from './key-id.ts'
import { makePair, SealedChannel } from './sealed-channel.ts'
import { isSigned } from './signing.ts'

// The coordinator's side of an enrolment: reads the card of the node that shows a code, and pushes
// the enrolment to it. What comes back is believed only if it opens under the code and is signed by
// the identity that the card names.

const cardReplySchema = z.object({ protocol: z.literal(1), key: z.string(), card: z.string() })
const signedCardSchema = z.strictObject({ card: nodeCardSchema, signature: z.string() })
const receiptReplySchema = z.object({ receipt: z.string() })
const resultSchema = z.union([
  z.strictObject({ accepted: z.string() }),
  z.strictObject({ refused: z.strictObject({ code: z.string(), message: z.string() }) }),
])
const signedResultSchema = z.strictObject({ result: resultSchema, signature: z.string() })
const errorSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) })

/** A node that has shown its card under the right code. */
export interface CardedNode {
  readonly card: NodeCard
  /**
   * Pushes the enrolment; the same one may be pushed again when no answer came.
   * @throws Fault link.enrolment_refused (details.code is the node's own reason),
   *   link.unreachable (details.sent: it may have arrived)
   */
  push(enrolment: Enrolment): Promise<void>
}

export interface FetchCardOptions {
  signal?: AbortSignal
  /** Milliseconds for each request. Default 10 000. */
  timeout?: number
}

/**
 * Reads a node's card. `address` is `host`, `host:port` or `[v6]:port`; the port defaults to 9999.
 * @throws Fault link.enrolment_wrong_code, link.unreachable, link.address_invalid, link.reply_invalid
 */
export async function fetchCard(
  address: string,
  code: Secret,
  options: FetchCardOptions = {},
): Promise<CardedNode> {
  const base = enrolmentUrl(address)
  const pair = makePair()
  const reply = await exchange(`${base}?key=${pair.shown}`, { method: 'GET', ...options })
  const { key, card: sealed } = read(cardReplySchema, reply)
  const channel = SealedChannel.derive(pair, key, 'coordinator', code)
  const { card, signature } = trusted(signedCardSchema, channel.open('card', sealed))
  const identity = identityOf(card)
  check(identity, 'enrolment-card', { card, exchange: channel.exchange }, signature)
  return {
    card,
    push: async (enrolment) => {
      const body = canonicalJson({ key: pair.shown, offer: await channel.seal('offer', enrolment) })
      const answer = await exchange(base, { method: 'POST', body, ...options })
      const { receipt } = read(receiptReplySchema, answer)
      const signed = trusted(signedResultSchema, channel.open('receipt', receipt))
      const { result } = signed
      check(identity, 'enrolment-receipt', { result, exchange: channel.exchange }, signed.signature)
      if ('refused' in result) throw refused(result.refused)
      if (result.accepted !== digestOf(enrolment))
        throw invalid('its receipt is for another enrolment')
    },
  }
}

/** The address of a node's enrolment port. @throws Fault link.address_invalid */
export function enrolmentUrl(address: string): string {
  const url = URL.parse(`http://${address}/`)
  const plain =
    url !== null && url.pathname === '/' && `${url.username}${url.search}${url.hash}` === ''
  if (!plain || url.hostname === '') {
    const text = `"${address.slice(0, 100)}" is not an address such as 192.0.2.7 or node.example:9999`
    throw linkFault('link.address_invalid', text)
  }
  // A URL drops the port when it is the scheme's own, which somebody may have meant.
  const port = /:80$/.test(address) ? '80' : url.port || String(enrolmentPort)
  return `http://${url.hostname}:${port}/`
}

function digestOf(enrolment: Enrolment): string {
  return createHash('sha256').update(canonicalJson(enrolment)).digest('base64url')
}

function identityOf(card: NodeCard): KeyObject {
  try {
    const identity = createPublicKey(card.identity)
    if (keyId(identity) === card.node) return identity
  } catch {
    // It is reported like any other wrong card.
  }
  throw invalid('its card names an identity that is not its key')
}

function check(identity: KeyObject, purpose: string, body: JsonObject, signature: string): void {
  if (!isSigned(identity, purpose, body, signature))
    throw invalid('its answer is not signed by the identity on its card')
}

function read<T>(schema: z.ZodType<T>, reply: { status: number; body: string }): T {
  const parsed = schema.safeParse(json(reply.body))
  if (parsed.success && reply.status === 200) return parsed.data
  const failure = errorSchema.safeParse(json(reply.body))
  if (failure.success) throw refused(failure.data.error)
  throw invalid(`it answers with status ${reply.status} and no card`)
}

function json(text: string): unknown {
  try {
    return parseJson(text, 'the reply')
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

/** The sender had the code; it may still be another version of the software. */
function trusted<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw invalid(`its answer is not understood: ${z.prettifyError(parsed.error)}`)
}

function invalid(reason: string): Error {
  return linkFault('link.reply_invalid', `the node at this address cannot be enrolled: ${reason}`)
}

function refused({ code, message }: { code: string; message: string }): Error {
  return linkFault('link.enrolment_refused', `the node refuses: ${message.slice(0, 500)}`, {
    details: { code: code.slice(0, 100) },
  })
}
