import { constants, type KeyObject, privateDecrypt, sign } from 'node:crypto'
import { parseJsonObject, Secret, writeDurable } from '@holdfast/base'
import { approval, makeAnswerFile, readRequestFile, shareAnswer } from '@holdfast/coordinator'
import type { ApiClient } from '@holdfast/link/api-client'
import { ceremonyRoutes, statusRoutes } from '@holdfast/protocol'
import { type Ceremony, ceremonyText } from './ceremony-text.ts'
import type { Context, Outcome } from './command.ts'
import { clientFrom, pinFrom } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { readPrivateKey } from './holders.ts'
import type { Input } from './input.ts'
import { readInput } from './streams.ts'

// A holder's part of a ceremony: unwrap the share, append it to the statement, sign the whole. Done
// in one command where there is a network, or in three with files carried over an air gap.

const fileLimit = 512 * 1024

/** `holdfast holder request` */
export async function requestAction(input: Input, context: Context): Promise<Outcome> {
  const holder = input.requiredWord(0, 'NAME')
  using client = await clientFrom(input, context)
  const request = await fetchRequest(client, input, holder)
  const text = `${JSON.stringify(request)}\n`
  const file = input.text('out')
  if (file === undefined || file === '-') return { json: request, text }
  await writeDurable(file, text, { mode: 0o644 })
  return { json: { file, holder, kid: request.kid }, text: `wrote ${file}` }
}

async function fetchRequest(client: ApiClient, input: Input, holder: string) {
  const id = await ceremonyOf(client, input)
  return await client.call(ceremonyRoutes.request, { params: { id, holder } })
}

/** The ceremony on the command line, or the one that is open. @throws Fault cli.usage */
async function ceremonyOf(client: ApiClient, input: Input): Promise<string> {
  const given = input.text('ceremony')
  if (given !== undefined) return given
  const { ceremony, state, hint } = await client.call(statusRoutes.status)
  if (ceremony !== undefined) return ceremony.id
  throw cliFault('cli.usage', `no ceremony is open, the coordinator is in ${state}`, { hint })
}

/** `holdfast holder answer` */
export async function answerAction(input: Input, context: Context): Promise<Outcome> {
  const holder = input.requiredWord(0, 'NAME')
  const carried = input.text('in')
  if (carried !== undefined) return await answerFile(input, context, holder, carried)
  using client = await clientFrom(input, context)
  const id = await ceremonyOf(client, input)
  const request = await client.call(ceremonyRoutes.request, { params: { id, holder } })
  const answer = await answerTo(JSON.stringify(request), client.place.identity, input, context)
  return await handIn(client, id, answer)
}

/** Offline: request in, answer out. Nothing is sent. */
async function answerFile(
  input: Input,
  context: Context,
  holder: string,
  carried: string,
): Promise<Outcome> {
  const out = input.requiredText('out')
  const pin = await pinFrom(input, context)
  const answer = await answerTo(
    (await readInput(carried, fileLimit)).toString('utf8'),
    pin,
    input,
    context,
  )
  await writeDurable(out, answer, { mode: 0o600 })
  return { json: { file: out, holder }, text: `wrote ${out}; only the coordinator can read it` }
}

/** `holdfast holder submit` */
export async function submitAction(input: Input, context: Context): Promise<Outcome> {
  const answer = (await readInput(input.requiredWord(0, 'ANSWER'), fileLimit)).toString('utf8')
  using client = await clientFrom(input, context)
  return await handIn(client, await ceremonyOf(client, input), answer)
}

async function handIn(client: ApiClient, id: string, answer: string): Promise<Outcome> {
  const { holder, statement, signature } = parseJsonObject(answer, 'the answer', fileLimit)
  const body = {
    holder: String(holder),
    statement: String(statement),
    signature: String(signature),
  }
  const after: Ceremony = await client.call(ceremonyRoutes.answer, { params: { id }, body })
  return { json: after, text: await ceremonyText(after) }
}

/** Checks that the pinned coordinator asks, and makes the answer, encrypted to it. */
async function answerTo(
  text: string,
  pin: string,
  input: Input,
  context: Context,
): Promise<string> {
  const holder = input.requiredWord(0, 'NAME')
  const request = readRequestFile(text, pin)
  if (request.holder !== holder) {
    throw cliFault('cli.digest_differs', `the request is for ${request.holder}, not for ${holder}`)
  }
  checkDigest(request.statement, input)
  const key = await keyFrom(input, context, holder)
  const { statement, signature } = signed(key, holder, request.statement, request.wrapped)
  using whole = statement
  return await makeAnswerFile(request, whole, signature)
}

/** The digest says what exactly is approved; a holder who knows it need not trust the coordinator. */
function checkDigest(statement: string, input: Input): void {
  const expected = input.text('digest')
  const stated = /^digest (.*)$/m.exec(statement)?.[1] ?? ''
  if (expected === undefined || expected === stated) return
  throw cliFault('cli.digest_differs', `the ceremony is about ${stated}, not about ${expected}`, {
    hint: 'it asks for something else than you were told: ask before you answer',
  })
}

async function keyFrom(input: Input, context: Context, holder: string): Promise<KeyObject> {
  const file = input.requiredText('key')
  const key = await readPrivateKey(holder, file, input, context)
  if (key.asymmetricKeyType === 'rsa') return key
  throw cliFault(
    'cli.holder_key_unfit',
    `the key of ${holder} is of type ${key.asymmetricKeyType}, and holders of a coordinator have RSA keys`,
    { hint: `make one: holdfast holder keygen ${holder} --type rsa3072` },
  )
}

/** The statement with its last line, and the signature over the whole. */
function signed(
  key: KeyObject,
  holder: string,
  statement: string,
  wrapped: string,
): { statement: Secret; signature: Buffer } {
  const approves = /^kind (manifest|dismissal)$/m.test(statement)
  const last = approves ? approval : shareLine(key, holder, wrapped)
  const whole = Secret.copy(`${statement}${last}\n`)
  return { statement: whole, signature: sign('sha256', whole.reveal(), key) }
}

function shareLine(key: KeyObject, holder: string, wrapped: string): string {
  using share = unwrap(key, holder, wrapped)
  return shareAnswer(share)
}

function unwrap(key: KeyObject, holder: string, wrapped: string): Secret {
  const options = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }
  try {
    return Secret.take(privateDecrypt(options, Buffer.from(wrapped, 'base64url')))
  } catch {
    throw cliFault('cli.share_malformed', `the share of ${holder} does not open with this key`, {
      hint: `is it the key of ${holder}? its public half: openssl pkey -in ${holder}.key -pubout`,
    })
  }
}

/** `holdfast holder prove` */
export async function proveAction(input: Input, context: Context): Promise<Outcome> {
  const name = input.requiredWord(0, 'NAME')
  const key = await keyFrom(input, context, name)
  using client = await clientFrom(input, context)
  const challenge = await client.call(ceremonyRoutes.challenge, { params: { name } })
  const made = signed(key, name, challenge.statement, challenge.wrapped)
  using statement = made.statement
  const proven = await client.call(ceremonyRoutes.prove, {
    params: { name },
    body: {
      holder: name,
      statement: statement.reveal().toString('base64url'),
      signature: made.signature.toString('base64url'),
    },
  })
  return { json: proven, text: `${name} has proven the key ${proven.kid}; no share was touched` }
}
