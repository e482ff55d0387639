import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { join } from 'node:path'
import {
  type Clock,
  canonicalJson,
  codeOf,
  ensureDirectory,
  listDirectory,
  parseJsonObject,
  readIfPresent,
  removeDurable,
  Secret,
  writeDurable,
} from '@holdfast/base'
import { encryptJwe } from '@holdfast/crypto'
import { keyId } from '@holdfast/link'
import { idSchema, publicKeySchema } from '@holdfast/protocol'
import { compactDecrypt } from 'jose'
import { z } from 'zod'
import { recordAlone } from './audit.ts'
import { hostKeyFile, readMarker, writeMarker } from './claim.ts'
import { equalTexts } from './compare.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { identityFile } from './identity.ts'
import { writeFirstWitness } from './witness.ts'

// A second instance of a cluster. It needs what lies outside the store: the identity key and the host
// key. Somebody at the machine of a running instance makes a token there, which works once and for
// ten minutes; the new host hands it in over TLS pinned to the identity, with a key of its own, and
// gets the files sealed to that key. No user of the API can ask for them, however mighty.

const tokenFile = 'join-token'
const tokenLife = 10 * 60_000
const type = 'holdfast-join'

export interface JoinToken {
  token: string
  /** Milliseconds since 1970. */
  expires: number
}

/** Makes the one-time token in the directory of a running instance; an earlier one is void. */
export async function prepareJoin(directory: string, clock: Clock): Promise<JoinToken> {
  if ((await readMarker(directory)) === undefined)
    throw coordinatorFault('coordinator.storage_missing', `${directory} belongs to no cluster`, {
      hint: 'run this on the machine of an instance that is running, with its directory',
    })
  const made = { token: randomBytes(20).toString('base64url'), expires: clock.now() + tokenLife }
  await writeDurable(join(directory, tokenFile), `${canonicalJson(made)}\n`)
  return made
}

const deliverySchema = z.strictObject({
  cluster: idSchema,
  generation: z.number().int().min(1),
  identity: z.string().max(4096),
  /** The text of the host key's file, where there is one. */
  hostKey: z.string().max(4096).optional(),
})

/**
 * Gives the files of this instance to whoever has the token, sealed to their key.
 * @param key PEM, P-256
 * @returns a compact JWE
 * @throws Fault coordinator.join_refused
 */
export async function admitInstance(
  coordinator: Coordinator,
  given: { token: string; key: string; name: string },
): Promise<string> {
  const { directory, store, clock, header, identity } = coordinator
  if (store.engine !== 'postgresql')
    throw refused('the state is in SQLite, which serves one instance', {
      hint: 'several instances share a PostgreSQL: holdfast coordinator serve --store FILE',
    })
  const receiver = publicKeyOf(given.key)
  // Strangers' guesses cost one file read: no transaction, no entry in the log.
  const wrong = 'the token is wrong, was used, or is older than ten minutes'
  if (!(await isToken(directory, given.token, clock.now()))) throw refused(wrong)
  // Gone before anything is given for it; of two who hand it in one is late.
  if (!(await removeDurable(join(directory, tokenFile)))) throw refused(wrong)
  const event = { actor: 'console', action: 'instance.join', subject: given.name } as const
  await recordAlone(store, clock, { ...event, outcome: 'done' })
  const hostKey = await readIfPresent(join(directory, hostKeyFile), 4096)
  using plaintext = Secret.copy(
    canonicalJson({
      cluster: header?.cluster,
      generation: coordinator.witnessed || header?.generation,
      identity: identity.key.export({ type: 'pkcs8', format: 'pem' }),
      ...(hostKey === undefined ? {} : { hostKey: hostKey.toString('utf8') }),
    }),
  )
  return await encryptJwe({ alg: 'ECDH-ES', typ: type }, receiver, plaintext)
}

async function isToken(directory: string, given: string, now: number): Promise<boolean> {
  const stored = await readIfPresent(join(directory, tokenFile), 500)
  if (stored === undefined) return false
  const { token, expires } = parseJsonObject(stored.toString('utf8'), 'the token')
  return equalTexts(String(token), given.trim()) && Number(expires) > now
}

function publicKeyOf(pem: string): KeyObject {
  try {
    const key = createPublicKey(publicKeySchema.parse(pem))
    if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key
  } catch {
    // It is refused like any other key that cannot be used.
  }
  throw refused('the key to seal the files for is not P-256')
}

function refused(reason: string, options: { hint: string } = { hint: tokenHint }): Error {
  return coordinatorFault('coordinator.join_refused', `nothing is handed over: ${reason}`, options)
}

const tokenHint =
  'on the machine of the running instance: holdfast coordinator join-token --directory DIR'

export interface JoinRequest {
  /** Where the new instance will live; empty, or left by an interrupted join of the same cluster. */
  directory: string
  /** The identity that the cluster is known by. */
  pinned: string
  /** Asks the running instance, over TLS pinned to that identity; returns the JWE. */
  ask(key: string): Promise<string>
}

/**
 * Makes a directory into one of another instance of a running cluster.
 * @throws Fault coordinator.not_empty, coordinator.join_refused, and what `ask` throws
 */
export async function joinCluster(request: JoinRequest): Promise<{ cluster: string }> {
  const { directory, pinned, ask } = request
  const own = await ownFiles(directory)
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const sealed = await ask(publicKey.export({ type: 'spki', format: 'pem' }).toString())
  const { cluster, generation, identity, hostKey } = await delivered(sealed, privateKey)
  if (keyId(createPublicKey(createPrivateKey(identity))) !== pinned)
    throw refused('what came is not the identity that was pinned')
  if (own !== undefined && own !== cluster) throw notEmpty(directory, `the cluster ${own}`)
  await ensureDirectory(directory)
  // The marker first: however this is interrupted, the directory is never taken for a new one.
  await writeMarker(directory, cluster)
  await writeFirstWitness(directory, { cluster, generation })
  if (hostKey !== undefined)
    await writeDurable(join(directory, hostKeyFile), hostKey, { mode: 0o400 })
  await writeDurable(join(directory, identityFile), identity)
  return { cluster }
}

async function delivered(sealed: string, key: KeyObject): Promise<z.infer<typeof deliverySchema>> {
  const { plaintext, protectedHeader } = await compactDecrypt(sealed, key, {
    keyManagementAlgorithms: ['ECDH-ES'],
    contentEncryptionAlgorithms: ['A256GCM'],
  })
  using text = Secret.take(plaintext)
  if (protectedHeader.typ !== type) throw refused('what came is something else')
  return deliverySchema.parse(parseJsonObject(text.reveal().toString('utf8'), 'what came'))
}

/** The cluster that an interrupted join has left here. @throws Fault coordinator.not_empty */
async function ownFiles(directory: string): Promise<string | undefined> {
  const expected = ['initialised', 'witness', hostKeyFile, identityFile]
  const names = await listDirectory(directory).catch((error: unknown) => {
    if (codeOf((error as Error).cause) === 'ENOENT') return []
    throw error
  })
  const inTheWay = names.filter((name) => !expected.includes(name))
  if (inTheWay.length > 0) throw notEmpty(directory, inTheWay.slice(0, 3).join(', '))
  return await readMarker(directory)
}

function notEmpty(directory: string, found: string): Error {
  return coordinatorFault(
    'coordinator.not_empty',
    `${directory} is not empty (${found}), and no instance is set up over it`,
    { hint: 'take another directory' },
  )
}
