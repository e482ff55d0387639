import { createHash } from 'node:crypto'
import { parseJsonObject, writeDurable } from '@holdfast/base'
import { makeAnswerFile, readRequestFile } from '@holdfast/coordinator'
import type { ApiClient } from '@holdfast/link/api-client'
import { ceremonyRoutes, statusRoutes } from '@holdfast/protocol'
import { type Ceremony, ceremonyText } from './ceremony-text.ts'
import type { Context, Outcome } from './command.ts'
import { clientFrom, pinFrom } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { type Asked, isForToken, leaveForToken, signAnswer } from './holder-desk.ts'
import type { Input } from './input.ts'
import { readInput } from './streams.ts'

// A holder's part of a ceremony: unwrap the share, append it to the statement, sign the whole. Done
// in one command where there is a network, or in three with files carried over an air gap.

const fileLimit = 512 * 1024

type Request = ReturnType<typeof readRequestFile>

/** `holdfast holder request` */
export async function requestAction(input: Input, context: Context): Promise<Outcome> {
  const holder = input.requiredWord(0, 'NAME')
  using client = await clientFrom(input, context)
  return await handOut(await fetchRequest(client, input, holder), input)
}

/** Prints something for one holder as JSON, or writes it to --out. */
async function handOut(found: { holder: string; kid: string }, input: Input): Promise<Outcome> {
  const text = `${JSON.stringify(found)}\n`
  const file = input.text('out')
  if (file === undefined || file === '-') return { json: found, text }
  await writeDurable(file, text, { mode: 0o644 })
  return { json: { file, holder: found.holder, kid: found.kid }, text: `wrote ${file}` }
}

/** `holdfast holder share` */
export async function shareAction(input: Input, context: Context): Promise<Outcome> {
  const name = input.requiredWord(0, 'NAME')
  using client = await clientFrom(input, context)
  return await handOut(await client.call(ceremonyRoutes.share, { params: { name } }), input)
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
  throw cliFault('cli.usage', `no ceremony is open: nobody has to answer (it is in ${state})`, {
    hint:
      state === 'running'
        ? 'nothing needs the holders now; to show that a key still works: holdfast holder prove NAME --key FILE'
        : hint,
  })
}

/** `holdfast holder answer` */
export async function answerAction(input: Input, context: Context): Promise<Outcome> {
  const holder = input.requiredWord(0, 'NAME')
  const carried = input.text('in')
  if (carried !== undefined) return await answerFile(input, context, holder, carried)
  using client = await clientFrom(input, context)
  const id = await ceremonyOf(client, input)
  const request = await client.call(ceremonyRoutes.request, { params: { id, holder } })
  const asked = checked(JSON.stringify(request), client.place.identity, input)
  if (isForToken(input)) return await leaveForToken(input, holder, asked)
  return await handIn(client, id, await answerTo(asked, input, context), context)
}

/** Offline: request in, answer out. Nothing is sent. */
async function answerFile(
  input: Input,
  context: Context,
  holder: string,
  carried: string,
): Promise<Outcome> {
  const pin = await pinFrom(input, context)
  const asked = checked((await readInput(carried, fileLimit)).toString('utf8'), pin, input)
  if (isForToken(input)) return await leaveForToken(input, holder, asked)
  const out = input.requiredText('out')
  await writeDurable(out, await answerTo(asked, input, context), { mode: 0o600 })
  return { json: { file: out, holder }, text: `wrote ${out}; only the coordinator can read it` }
}

/** `holdfast holder submit` */
export async function submitAction(input: Input, context: Context): Promise<Outcome> {
  const answer = (await readInput(input.requiredWord(0, 'ANSWER'), fileLimit)).toString('utf8')
  using client = await clientFrom(input, context)
  return await handIn(client, await ceremonyOf(client, input), answer, context)
}

async function handIn(
  client: ApiClient,
  id: string,
  answer: string,
  context: Context,
): Promise<Outcome> {
  const { holder, statement, signature } = parseJsonObject(answer, 'the answer', fileLimit)
  const body = {
    holder: String(holder),
    statement: String(statement),
    signature: String(signature),
  }
  const after: Ceremony = await client.call(ceremonyRoutes.answer, { params: { id }, body })
  return { json: after, text: await ceremonyText(after, context) }
}

/** Checks that the pinned coordinator asks, and what it asks for. */
function checked(text: string, pin: string, input: Input): Request {
  const holder = input.requiredWord(0, 'NAME')
  const request = readRequestFile(text, pin)
  if (request.holder !== holder) {
    throw cliFault('cli.digest_differs', `the request is for ${request.holder}, not for ${holder}`)
  }
  checkDigest(request.statement, input)
  return request
}

async function answerTo(request: Request, input: Input, context: Context): Promise<string> {
  using signed = await signAnswer(input, context, request.holder, request)
  return await makeAnswerFile(request, signed.statement, signed.signature)
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

/** A proof is asked for often and given lightly: it must be able to be nothing else. */
function requireProof(name: string, { statement, sealed }: Asked): void {
  const digest = createHash('sha256').update(sealed).digest('base64url')
  const lines = statement.split('\n')
  const wanted = ['kind proof', `ceremony proof-${name}`, `holder ${name}`, `digest ${digest}`]
  const missing = wanted.find((line) => lines.filter((each) => each === line).length !== 1)
  const kinds = lines.filter((line) => line.startsWith('kind '))
  if (missing === undefined && kinds.length === 1) return
  throw cliFault('cli.digest_differs', `what is to be signed is no proof of the key of ${name}`, {
    hint: 'the coordinator asks for something else than it says: do not answer, and find out who runs it',
  })
}

/** `holdfast holder prove` */
export async function proveAction(input: Input, context: Context): Promise<Outcome> {
  const name = input.requiredWord(0, 'NAME')
  using client = await clientFrom(input, context)
  const challenge = await client.call(ceremonyRoutes.challenge, { params: { name } })
  requireProof(name, challenge)
  if (isForToken(input)) return await leaveForToken(input, name, challenge)
  using signed = await signAnswer(input, context, name, challenge)
  const proven = await client.call(ceremonyRoutes.prove, {
    params: { name },
    body: {
      holder: name,
      statement: signed.statement.reveal().toString('base64url'),
      signature: signed.signature.toString('base64url'),
    },
  })
  return { json: proven, text: `${name} has proven the key ${proven.kid}; no share was touched` }
}
