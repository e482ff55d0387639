import { constants, privateDecrypt, sign } from 'node:crypto'
import { parseJsonObject, Secret } from '@holdfast/base'
import { approval, makeAnswerFile, readRequestFile, shareAnswer } from '@holdfast/coordinator'
import type { ApiClient } from '@holdfast/link/api-client'
import { ceremonyRoutes, type ceremonySchema } from '@holdfast/protocol'
import type { z } from 'zod'
import type { LocalHolder } from './holders.ts'

// Holders in the drills: each answers as `holdfast holder answer` does, with a key that lies on this
// disk, in a token, or is used by other people's programs.

export type CeremonyView = z.output<typeof ceremonySchema>

/** A holder's private key, wherever it is. */
export interface HolderKey {
  readonly name: string
  /** Undoes RSA-OAEP with SHA-256. */
  unwrap(wrapped: Buffer): Promise<Secret>
  /** RSA PKCS#1 v1.5 with SHA-256. */
  sign(statement: Buffer): Promise<Buffer>
}

/** What is handed in: `statement` and `signature` in base64url. */
export interface HandedIn {
  holder: string
  statement: string
  signature: string
}

/** A holder who unwraps and signs with Node's own cryptography. */
export function softwareKey({ name, privateKey }: LocalHolder): HolderKey {
  const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }
  return {
    name,
    unwrap: async (wrapped) => Secret.take(privateDecrypt({ key: privateKey, ...oaep }, wrapped)),
    sign: async (statement) => sign('sha256', statement, privateKey),
  }
}

/** The file of a request, as the coordinator gives it to anybody. */
export async function fetchRequest(client: ApiClient, id: string, holder: string): Promise<string> {
  return JSON.stringify(await client.call(ceremonyRoutes.request, { params: { id, holder } }))
}

/**
 * Answers a request file: nothing is asked over the network, so this is the offline machine, too.
 * @param pin the coordinator's identity, known beforehand
 * @returns the answer file
 */
export async function answerFile(key: HolderKey, request: string, pin: string): Promise<string> {
  const asked = readRequestFile(request, pin)
  const last = /^kind (manifest|dismissal)$/m.test(asked.statement)
    ? approval
    : await shareLine(key, asked.wrapped)
  using whole = Secret.copy(`${asked.statement}${last}\n`)
  return await makeAnswerFile(asked, whole, await key.sign(whole.reveal()))
}

async function shareLine(key: HolderKey, wrapped: string): Promise<string> {
  using share = await key.unwrap(Buffer.from(wrapped, 'base64url'))
  return shareAnswer(share)
}

/** Hands an answer file in. */
export async function handIn(client: ApiClient, id: string, file: string): Promise<CeremonyView> {
  const { holder, statement, signature } = parseJsonObject(file, 'the answer', 512 * 1024)
  const body = { holder: `${holder}`, statement: `${statement}`, signature: `${signature}` }
  return await client.call(ceremonyRoutes.answer, { params: { id }, body })
}

/** Fetch, unwrap, sign, hand in. @throws Fault ceremony.* as the coordinator says */
export async function answer(client: ApiClient, id: string, key: HolderKey): Promise<CeremonyView> {
  const request = await fetchRequest(client, id, key.name)
  return await handIn(client, id, await answerFile(key, request, client.place.identity))
}
