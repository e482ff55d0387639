import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { canonicalJson, isObject } from '@holdfast/base'
import { keyId } from '@holdfast/link'
import { type Manifest, manifestSchema } from '@holdfast/protocol'
import { z } from 'zod'
import { coordinatorFault } from './faults.ts'

export interface Change {
  path: string
  from: unknown
  to: unknown
}

/** SHA-256 of the manifest's canonical JSON, base64url: what holders approve. */
export function manifestDigest(manifest: Manifest): string {
  return createHash('sha256').update(canonicalJson(manifest)).digest('base64url')
}

/**
 * Characters of its canonical JSON. What is in force is read again by every duty, stands in the record
 * of the ceremony that approves it beside the holders' keys, and goes to agents in one document: each
 * of them takes a million, and a manifest that could be put in force but not be read would end them all.
 */
const largestManifest = 400_000

/**
 * Reads a manifest strictly: its form, and that every key in it is one that can do its work, before
 * anything is made for it. @throws Fault coordinator.manifest_invalid with every problem and its place
 */
export function readManifest(value: unknown): Manifest {
  const parsed = manifestSchema.safeParse(value)
  if (!parsed.success) {
    const issues = parsed.error.issues.map(({ path, message }) => ({
      path: path.join('.'),
      message,
    }))
    throw invalid(z.prettifyError(parsed.error).replace(/\s+/g, ' '), issues)
  }
  const manifest = parsed.data
  const issues = [keyProblems, userProblems, sizeProblems].flatMap((look) => look(manifest))
  if (issues.length === 0) return manifest
  const texts = issues.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`))
  throw invalid(texts.join('; '), issues)
}

interface Issue {
  path: string
  message: string
}

function invalid(text: string, issues: Issue[]): Error {
  return coordinatorFault('coordinator.manifest_invalid', `the manifest is not valid: ${text}`, {
    hint: 'check it before sending: holdfast manifest verify FILE',
    details: { issues },
  })
}

/** Bits; above the second OpenSSL refuses to compute. */
const [smallestRsa, largestRsa] = [3072, 16_384]

function keyProblems({ holders, releases }: Manifest): Issue[] {
  const people =
    'keys' in holders ? problemsOfKeys(holders.keys, 'holders.keys', holderProblem) : []
  return [...people, ...problemsOfKeys(releases?.keys ?? {}, 'releases.keys', releaseProblem)]
}

/** Two spellings of one key are one key: what counts is its digest. */
function problemsOfKeys(
  keys: Record<string, string>,
  place: string,
  problem: (key: KeyObject) => string | undefined,
): Issue[] {
  const owners = new Map<string, string>()
  return Object.entries(keys).flatMap(([name, pem]) => {
    const path = `${place}.${name}`
    const key = publicKey(pem)
    if (key === undefined) return [{ path, message: 'this is no public key' }]
    const owner = owners.get(keyId(key))
    if (owner !== undefined) return [{ path, message: `this is the key of ${owner}, too` }]
    owners.set(keyId(key), name)
    const message = problem(key)
    return message === undefined ? [] : [{ path, message }]
  })
}

function publicKey(pem: string): KeyObject | undefined {
  try {
    return createPublicKey(pem)
  } catch {
    return undefined
  }
}

/** A holder both unwraps a share and signs an answer. */
function holderProblem(key: KeyObject): string | undefined {
  if (isP256(key)) return undefined
  if (key.asymmetricKeyType !== 'rsa')
    return "a holder's key is RSA or P-256, so that it can both unwrap and sign"
  return rsaProblem(key)
}

function releaseProblem(key: KeyObject): string | undefined {
  if (isP256(key) || key.asymmetricKeyType === 'ed25519') return undefined
  return key.asymmetricKeyType === 'rsa'
    ? rsaProblem(key)
    : 'a release key is RSA, P-256 or Ed25519'
}

function isP256({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): boolean {
  return asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === 'prime256v1'
}

function rsaProblem({ asymmetricKeyDetails }: KeyObject): string | undefined {
  const bits = asymmetricKeyDetails?.modulusLength ?? 0
  if (bits >= smallestRsa && bits <= largestRsa) return undefined
  return `an RSA key has ${smallestRsa} bits at least and ${largestRsa} at most, and this one ${bits}`
}

/** A manifest that names users replaces all others, so somebody in it must be able to go on. */
function userProblems({ users }: Manifest): Issue[] {
  const named = Object.values(users)
  if (named.length === 0 || named.some(({ roles }) => roles.includes('admin'))) return []
  return [{ path: 'users', message: 'nobody has the role admin, so nobody could set another one' }]
}

function sizeProblems(manifest: Manifest): Issue[] {
  const { length } = canonicalJson(manifest)
  if (length <= largestManifest) return []
  return [{ path: '', message: `it has ${length} characters, and ${largestManifest} are the most` }]
}

/** What changes from one manifest to another, member by member. */
export function diffManifests(from: unknown, to: unknown, path = ''): Change[] {
  if (canonicalJson(from ?? null) === canonicalJson(to ?? null)) return []
  if (!isObject(from) || !isObject(to)) return [{ path, from: from ?? null, to: to ?? null }]
  const names = [...new Set([...Object.keys(from), ...Object.keys(to)])].sort()
  return names.flatMap((name) =>
    diffManifests(from[name], to[name], path === '' ? name : `${path}.${name}`),
  )
}
