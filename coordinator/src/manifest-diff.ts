import { createHash } from 'node:crypto'
import { canonicalJson, isObject } from '@holdfast/base'
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

/** Reads a manifest strictly. @throws Fault coordinator.manifest_invalid with every problem and its place */
export function readManifest(value: unknown): Manifest {
  const parsed = manifestSchema.safeParse(value)
  if (parsed.success) return parsed.data
  throw coordinatorFault(
    'coordinator.manifest_invalid',
    `the manifest is not valid: ${z.prettifyError(parsed.error).replace(/\s+/g, ' ')}`,
    {
      hint: 'check it before sending: holdfast manifest verify FILE',
      details: {
        issues: parsed.error.issues.map(({ path, message }) => ({ path: path.join('.'), message })),
      },
    },
  )
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
