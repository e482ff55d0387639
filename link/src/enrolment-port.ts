import { createHash, type KeyObject } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { canonicalJson, type Fault, isFault, parseJsonObject, type Secret } from '@holdfast/base'
import { type Enrolment, enrolmentSchema, type NodeCard } from '@holdfast/protocol/frames'
import { z } from 'zod'
import { boundConnections } from './crowd.ts'
import { linkFault } from './faults.ts'
import { openListener, readBody } from './listener.ts'
import {
  type Attempts,
  countWrong,
  type ExchangePair,
  formatCode,
  makeCode,
  makePair,
  mostAttempts,
  SealedChannel,
} from './sealed-channel.ts'
import { signBody } from './signing.ts'
import { WrongOffers } from './wrong-offers.ts'

// The node's enrolment port. Plain HTTP, because neither end has a certificate that the other knows;
// everything that matters is inside the sealed channel.
//   GET  /?key=C  →  { protocol: 1, key: N, card: JWE }      anybody may ask
//   POST / { key: C, offer: JWE }  →  { receipt: JWE }       five wrong ones replace the code
// Whoever has made it be replaced three times is not listened to for an hour: wrong-offers.ts.
// The same offer may come again when a reply was lost; it gets the same receipt.

/** Where a node listens while it waits to be enrolled. */
export const enrolmentPort = 9999

const keySchema = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const offerSchema = z.strictObject({ key: keySchema, offer: z.string().max(262_144) })
const bodyLimit = 300_000
/** Wrong offers from one source after which it is not heard: as many as replace the code three times. */
const mostWrong = 3 * mostAttempts

export interface EnrolmentPortOptions {
  /** Default: all interfaces. */
  host?: string
  /** Default 9999; 0 takes a free one. */
  port?: number
  /** The node's identity key. */
  identity: KeyObject
  card: NodeCard
  /** Shows the code on the console: now, and whenever it is replaced. */
  onCode: (code: string) => void
  /**
   * Writes the accepted enrolment down durably; only then is it acknowledged. A fault is told to the
   * coordinator. Called once for the same enrolment.
   */
  onEnrolment: (enrolment: Enrolment) => Promise<void>
  /** A wrong offer came; `replaced` says that the code is a new one now. */
  onWrongOffer?: (remote: string, replaced: boolean) => void
}

export interface EnrolmentPort extends AsyncDisposable {
  readonly port: number
}

/** Opens the port; disposing closes it. */
export async function openEnrolmentPort(options: EnrolmentPortOptions): Promise<EnrolmentPort> {
  const desk = new EnrolmentDesk(options)
  const server = createServer(
    { connectionsCheckingInterval: 1_000 },
    (request, response) => void handle(desk, request, response),
  )
  boundConnections(server, { most: 64, each: 32 })
  server.requestTimeout = 10_000
  server.headersTimeout = 5_000
  const { port = enrolmentPort, host } = options
  return await openListener(server, { port, host })
}

async function handle(
  desk: EnrolmentDesk,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const send = (status: number, body: unknown) => {
    const text = `${canonicalJson(body)}\n`
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' })
    response.end(text)
  }
  try {
    if (request.method === 'GET') return send(200, await desk.card(keyOf(request)))
    if (request.method !== 'POST') return send(405, { error: { code: 'link.method_not_allowed' } })
    const body = parseJsonObject(
      await readBody(request, bodyLimit, tooLong),
      'the offer',
      bodyLimit,
    )
    send(200, await desk.take(body, request.socket.remoteAddress ?? ''))
  } catch (error) {
    const { code, message } = isFault(error)
      ? error
      : { code: 'link.enrolment_refused', message: 'the request cannot be understood' }
    send(code === 'link.enrolment_wrong_code' ? 403 : 400, { error: { code, message } })
  }
}

function keyOf(request: IncomingMessage): string {
  const key = URL.parse(request.url ?? '', 'http://node')?.searchParams.get('key')
  return keySchema.parse(key)
}

const tooLong = () => linkFault('link.enrolment_refused', 'the request is too long')

/** The answers of the port, apart from HTTP. */
class EnrolmentDesk {
  readonly #options: EnrolmentPortOptions
  #code: Secret
  /** One key for as long as the code: nothing to remember per exchange, so nothing to crowd out. */
  #pair: ExchangePair = makePair()
  #attempts: Attempts = { wrong: 0 }
  readonly #wrong = new WrongOffers({ most: mostWrong, monotonic: () => performance.now() })
  /** What was accepted, as its digest, and the work of accepting it. */
  #accepted: { digest: string; done: Promise<void> } | undefined

  constructor(options: EnrolmentPortOptions) {
    this.#options = options
    this.#code = makeCode()
    options.onCode(formatCode(this.#code))
  }

  async card(theirs: string): Promise<{ protocol: 1; key: string; card: string }> {
    const channel = this.#channel(theirs)
    const { identity, card } = this.#options
    const signature = signBody(identity, 'enrolment-card', { card, exchange: channel.exchange })
    return {
      protocol: 1,
      key: this.#pair.shown,
      card: await channel.seal('card', { card, signature }),
    }
  }

  async take(body: unknown, remote: string): Promise<{ receipt: string }> {
    const { key, offer } = offerSchema.parse(body)
    if (this.#wrong.isRefused(remote))
      throw linkFault('link.enrolment_refused', `${mostWrong} wrong offers came from this address`)
    const channel = this.#channel(key)
    const given = this.#open(channel, offer, remote)
    const digest = createHash('sha256').update(canonicalJson(given)).digest('base64url')
    const result = await this.#accept(given, digest).then(
      () => ({ accepted: digest }),
      (error: Fault) => ({ refused: { code: error.code, message: error.message } }),
    )
    const signature = signBody(this.#options.identity, 'enrolment-receipt', {
      result,
      exchange: channel.exchange,
    })
    return { receipt: await channel.seal('receipt', { result, signature }) }
  }

  #open(channel: SealedChannel, offer: string, remote: string): Enrolment {
    let document: unknown
    try {
      document = channel.open('offer', offer)
    } catch (error) {
      this.#wrong.count(remote)
      const { attempts, rotate } = countWrong(this.#attempts)
      this.#attempts = attempts
      if (rotate) this.#replaceCode()
      this.#options.onWrongOffer?.(remote, rotate)
      throw error
    }
    return enrolmentSchema.parse(document)
  }

  async #accept(enrolment: Enrolment, digest: string): Promise<void> {
    if (this.#accepted !== undefined && this.#accepted.digest !== digest)
      throw linkFault('link.enrolment_refused', 'this node has accepted another enrolment')
    this.#accepted ??= { digest, done: this.#options.onEnrolment(enrolment) }
    try {
      await this.#accepted.done
    } catch (error) {
      this.#accepted = undefined
      throw isFault(error)
        ? error
        : linkFault('link.enrolment_refused', 'the node could not write the enrolment down')
    }
  }

  #replaceCode(): void {
    this.#code[Symbol.dispose]()
    this.#code = makeCode()
    this.#pair = makePair()
    this.#options.onCode(formatCode(this.#code))
  }

  #channel(theirs: string): SealedChannel {
    return SealedChannel.derive(this.#pair, theirs, 'node', this.#code)
  }
}
