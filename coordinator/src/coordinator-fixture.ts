import { constants, generateKeyPairSync, type KeyObject, privateDecrypt, sign } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Secret, systemClock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import {
  type Ceremony,
  type CeremonyDeps,
  readCeremony,
  statementFor,
  takeAnswer,
} from './ceremonies.ts'
import { Coordinator, type CoordinatorOptions } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import { finish } from './finish.ts'
import { preparedWay } from './holders.ts'
import { proposeManifest } from './manifests.ts'
import { holdersWay, shareHandler, wrappedShare } from './recovery.ts'
import { approval, shareAnswer } from './statement.ts'

// What the tests of this part share: real holders with RSA keys, and a coordinator on real storage.

export interface Person {
  name: string
  privateKey: KeyObject
  pem: string
}

export function person(name: string): Person {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 3072 })
  return { name, privateKey, pem: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
}

/** An empty directory and the options of a coordinator on SQLite in it. */
export async function place(
  store?: CoordinatorOptions['store'],
): Promise<{ directory: string; options: CoordinatorOptions } & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-coordinator-'))
  const options: CoordinatorOptions = {
    directory,
    store: store ?? { engine: 'sqlite', path: join(directory, 'state.db') },
    pins: createPins({ extra: [filePin()] }),
  }
  return { directory, options, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) }
}

export function depsOf(coordinator: Coordinator): CeremonyDeps {
  return {
    store: coordinator.store,
    clock: systemClock,
    cluster: () => coordinator.header?.cluster ?? '',
  }
}

export async function claimed(options: CoordinatorOptions): Promise<Coordinator> {
  const coordinator = await Coordinator.start(options)
  const token = await readFile(join(options.directory, 'claim-token'), 'utf8')
  await coordinator.claim(token, 'fleet', async () => undefined)
  return coordinator
}

export function manifestOf(people: readonly Person[], threshold: number): Record<string, unknown> {
  const keys = Object.fromEntries(people.map(({ name, pem }) => [name, pem]))
  return { version: 1, cluster: 'fleet', holders: { threshold, keys } }
}

/** A claimed coordinator whose manifest names these holders, all of them proven as far as needed. */
export async function running(
  options: CoordinatorOptions,
  people: readonly Person[],
  threshold: number,
): Promise<Coordinator> {
  const coordinator = await claimed(options)
  const deps = depsOf(coordinator)
  const { ceremony } = await proposeManifest(
    coordinator,
    deps,
    manifestOf(people, threshold),
    'test',
  )
  if (ceremony === undefined) throw new Error('no ceremony began')
  await answerAll(coordinator, ceremony, people.slice(0, threshold))
  return coordinator
}

/** What a holder does by hand: unwrap, append the last line, sign. */
export function answerOf(
  who: Person,
  statement: string,
  wrapped: string | undefined,
): { holder: string; statement: Buffer; signature: Buffer } {
  const last = wrapped === undefined ? approval : shareAnswer(unwrapped(who, wrapped))
  const text = Buffer.from(`${statement}${last}\n`)
  return { holder: who.name, statement: text, signature: sign('sha256', text, who.privateKey) }
}

function unwrapped({ privateKey }: Person, wrapped: string): Secret {
  const options = { key: privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }
  return Secret.take(privateDecrypt(options, Buffer.from(wrapped, 'base64url')))
}

/** One holder answers, as the API would take it. */
export async function answerOne(
  coordinator: Coordinator,
  ceremony: Ceremony,
  who: Person,
): Promise<Ceremony> {
  const deps = depsOf(coordinator)
  const statement = statementFor(deps, ceremony, who.name)
  if (ceremony.kind === 'manifest' || ceremony.kind === 'dismissal') {
    const handler = { needsShare: false, check: async () => undefined, keep: async () => '' }
    return await takeAnswer(deps, ceremony.id, answerOf(who, statement, undefined), handler)
  }
  const sealed =
    ceremony.kind === 'holders'
      ? await preparedWay(coordinator)
      : await holdersWay(coordinator, 'active')
  const { wrapped } = wrappedShare(sealed, who.name)
  const handler = shareHandler(coordinator.identity, sealed)
  return await takeAnswer(deps, ceremony.id, answerOf(who, statement, wrapped), handler)
}

/** These holders answer one after the other; a ceremony that is met is finished. */
export async function answerAll(
  coordinator: Coordinator,
  ceremony: Ceremony,
  people: readonly Person[],
): Promise<void> {
  for (const who of people) await answerOne(coordinator, ceremony, who)
  const deps = depsOf(coordinator)
  const after = await readCeremony(deps, ceremony.id)
  if (after.state === 'met') await finish(coordinator, deps, after)
}
