import { z } from 'zod'

// Words and ids that appear in every document. Lengths are bounded so that nothing unbounded ever
// reaches a table, a file name or a screen.

/**
 * A name that people choose: a cluster, a holder, a user, a service. Names are looked up in objects, all
 * of which have a `constructor`; every other inherited member has a letter that no name has.
 */
export const nameSchema = z
  .string()
  .regex(
    /^(?!constructor$)[a-z0-9][a-z0-9._-]{0,62}$/,
    'lower-case letters, digits, dot, dash, and not the word constructor',
  )

/** An id that Holdfast makes: base64url of 16 random bytes. */
export const idSchema = z.string().regex(/^[A-Za-z0-9_-]{22}$/, 'an id of 22 base64url characters')

/** A node's id: SHA-256 of its public identity key (SubjectPublicKeyInfo), base64url. */
export const nodeIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/, 'a node id of 43 base64url characters')

/** A SHA-256 digest, base64url. */
export const digestSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/, 'a digest of 43 base64url characters')

/** A moment: milliseconds since 1970-01-01 UTC. */
export const momentSchema = z.number().int().nonnegative()

/** A public key as PEM SubjectPublicKeyInfo. */
export const publicKeySchema = z
  .string()
  .max(4096)
  .regex(/^-----BEGIN PUBLIC KEY-----[\s\S]+-----END PUBLIC KEY-----\s*$/, 'a PEM public key')

/** k people of whom each is named and has a public key. */
export const namedHoldersSchema = z.strictObject({
  threshold: z.number().int(),
  keys: z.record(nameSchema, publicKeySchema),
})

/** Unpadded base64url of bounded length. */
export const bytesSchema = z
  .string()
  .max(65_536)
  .regex(/^[A-Za-z0-9_-]*$/, 'unpadded base64url')

/** A compact JWE. */
export const sealedSchema = z
  .string()
  .max(262_144)
  .regex(/^[\w-]+(\.[\w-]*){4}$/, 'a compact JWE')
