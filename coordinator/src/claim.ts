import { generateKeyPairSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { join } from 'node:path'
import { type Clock, readIfPresent, removeDurable, Secret, writeDurable } from '@holdfast/base'
import { selfSigned } from '@holdfast/link'
import type { Pins } from '@holdfast/seal'
import { DataKey } from './data-key.ts'
import { coordinatorFault } from './faults.ts'
import { ensureKeyFile } from './file-pin.ts'
import { type Header, headerDigest, signHeader } from './header.ts'
import type { Identity } from './identity.ts'
import { writeSecret } from './secrets.ts'
import { isDuplicate, type Store, type Work } from './store.ts'
import { makeWay, newId } from './ways.ts'

// Claiming: how a new coordinator gets its owner. The token lies in a file that only somebody on the
// machine can read, works once, and is gone afterwards. The store's transaction comes first and the
// marker after it: a crash between them leaves a claimed coordinator whose marker is written at the
// next start, never a marker without a store.

const tokenFile = 'claim-token'
const markerFile = 'initialised'
/** The same path on every instance of a cluster: a rotation by one must serve all. */
export const hostKeyFile = 'host.key'

/** Makes the one-time token if there is none; returns the path of its file. */
export async function prepareClaim(directory: string): Promise<string> {
  const path = join(directory, tokenFile)
  if ((await readIfPresent(path, 200)) === undefined)
    await writeDurable(path, `${randomBytes(20).toString('base64url')}\n`)
  return path
}

/** The cluster id in the marker, if this directory has ever belonged to one. */
export async function readMarker(directory: string): Promise<string | undefined> {
  const marker = await readIfPresent(join(directory, markerFile), 200)
  return marker?.toString('utf8').trim()
}

/** Says durably that this directory belongs to a cluster; the same again writes nothing. */
export async function writeMarker(directory: string, cluster: string): Promise<void> {
  if ((await readMarker(directory)) !== cluster)
    await writeDurable(join(directory, markerFile), `${cluster}\n`)
}

/** The directory belongs to no cluster any more. */
export async function removeMarker(directory: string): Promise<void> {
  await removeDurable(join(directory, markerFile))
}

async function removeClaimToken(directory: string): Promise<void> {
  await removeDurable(join(directory, tokenFile))
}

/** Compares in constant time. @throws Fault coordinator.claim_refused */
export async function checkClaimToken(directory: string, given: string): Promise<void> {
  const stored = await readIfPresent(join(directory, tokenFile), 200)
  const token = Buffer.from(stored?.toString('utf8').trim() ?? '')
  const candidate = Buffer.from(given.trim())
  if (token.length > 0 && token.length === candidate.length && timingSafeEqual(token, candidate))
    return
  throw coordinatorFault('coordinator.claim_refused', 'the claim token is wrong or was used', {
    hint: `on the coordinator's machine: cat ${join(directory, tokenFile)}`,
  })
}

export interface ClaimDeps {
  store: Store
  identity: Identity
  pins: Pins
  clock: Clock
  directory: string
}

/** Creates the cluster: its id, authority, data key and first automatic way, in one transaction. */
export async function claim(
  deps: ClaimDeps,
  name: string,
  also: (work: Work) => Promise<void>,
): Promise<{ cluster: string; key: DataKey; header: Header; digest: string }> {
  const { store, identity, pins, clock, directory } = deps
  const cluster = newId()
  const authority = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const command = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const validity = { from: new Date(0), until: new Date('2999-12-31T00:00:00Z') }
  const certificate = await selfSigned(authority, `Holdfast fleet ${name}`, validity, {
    authority: true,
  })
  const header: Header = { version: 1, cluster, name, generation: 1, authority: certificate }
  const signed = signHeader(header, identity.key)
  const digest = headerDigest(signed.body)
  const key = DataKey.random(1)
  const context = { cluster, generation: 1, headerDigest: digest }
  const policy = {
    kind: 'pin' as const,
    pin: 'file',
    config: { name: join(directory, hostKeyFile) },
  }
  await ensureKeyFile(policy.config.name)
  const way = await makeWay(pins, 'host-key', policy, key, context, clock)
  try {
    await store.write(async (work) => {
      await work
        .insertInto('header')
        .values({ id: 1, ...signed, digest, version: 1 })
        .execute()
      await work.insertInto('ways').values(way).execute()
      for (const [secret, value] of [
        ['authority-key', authority],
        ['command-key', command],
        // Only the holders can bring the identity to a new host: whoever has a backup cannot.
        ['identity-key', identity.key],
      ] as const) {
        using pem = Secret.copy(value.export({ type: 'pkcs8', format: 'pem' }).toString())
        await writeSecret(work, key, cluster, secret, pem)
      }
      await also(work)
    })
  } catch (error) {
    key[Symbol.dispose]()
    if (!isDuplicate(error)) throw error
    throw coordinatorFault(
      'coordinator.already_claimed',
      'the coordinator has been claimed meanwhile',
      { cause: error },
    )
  }
  await writeMarker(directory, cluster)
  await removeClaimToken(directory)
  return { cluster, key, header, digest }
}
