import { z } from 'zod'
import { nodePhases } from './codes.ts'
import { momentSchema, nameSchema, nodeIdSchema, publicKeySchema, sealedSchema } from './names.ts'

// What a node tells whoever reaches its peer port, and the key that may be pushed there, in every phase
// after enrolment. No certificate is needed: nothing here is secret, and a pushed key proves itself by
// opening the vault. The node shows its own certificate, on its identity key, so a client that knows
// the node's id pins it.

/** GET: `LockedState`. */
export const lockedStatePath = '/v1/state'

/** POST `UnlockPush`: `UnlockAnswer`, or an error with a code. */
export const unlockPath = '/v1/unlock'

/** The holders' way in as the volume's header carries it: to be opened by them, and then pushed. */
export const recoveryWaySchema = z.strictObject({
  keyslot: z.number().int(),
  label: z.string().max(300),
  sealed: sealedSchema,
})
export type RecoveryWay = z.infer<typeof recoveryWaySchema>

/** What one unlock attempt has, and what it needs. */
export const progressSchema = z.strictObject({
  /** Guardians whose part was had in the last attempt, and those that are missing with the reason. */
  answered: z.array(nodeIdSchema).max(64),
  missing: z.array(z.strictObject({ guardian: nodeIdSchema, reason: z.string().max(300) })).max(64),
  /** Pins of other kinds, as key servers, that failed in the last attempt. */
  failed: z
    .array(
      z.strictObject({
        pin: z.string().max(40),
        label: z.string().max(300),
        reason: z.string().max(300),
      }),
    )
    .max(32)
    .optional(),
  /** How many of the guardians are needed. */
  threshold: z.number().int(),
  attempts: z.number().int(),
  lastAttemptAt: momentSchema.optional(),
})

export const lockedStateSchema = z.strictObject({
  v: z.literal(1),
  node: nodeIdSchema,
  name: nameSchema,
  phase: z.enum(nodePhases),
  /** The task and step under way, as `reshare:prove`. */
  task: z.string().max(100).optional(),
  /** Why the node stays locked until an operator pushes a key, if it does (panic 1). */
  held: z.string().max(300).optional(),
  epoch: z.number().int(),
  /** Only while the vault is locked and its guardians are being asked. */
  progress: progressSchema.optional(),
  /** What people can do about it, one sentence each. */
  needs: z.array(z.string().max(500)).max(8),
  /** How it is connected, and where its own keys are: `file` means that the disk alone holds them. */
  network: z.enum(['kernel-wireguard', 'wireguard-go', 'mutual-tls']),
  keys: z.enum(['tpm', 'file']),
  wrongKeys: z.number().int(),
  /** The newest first. */
  lastErrors: z.array(z.string().max(500)).max(8),
  /** Public P-256 key that a pushed passphrase is sealed for (ECDH-ES, A256GCM). */
  exchange: publicKeySchema,
  recovery: z.array(recoveryWaySchema).max(32),
})
export type LockedState = z.infer<typeof lockedStateSchema>

/** A passphrase of the vault, sealed for the node's exchange key. */
export const unlockPushSchema = z.strictObject({ sealed: sealedSchema })
export type UnlockPush = z.infer<typeof unlockPushSchema>

export const unlockAnswerSchema = z.strictObject({
  phase: z.enum(nodePhases),
  /** The keyslot that it opened; absent when the vault was open already. */
  keyslot: z.number().int().optional(),
})
export type UnlockAnswer = z.infer<typeof unlockAnswerSchema>

/** How both answer when they refuse. */
export const lockedErrorSchema = z.strictObject({
  error: z.strictObject({
    code: z.string().max(100),
    message: z.string().max(2000),
    /** Seconds. */
    retryAfter: z.number().optional(),
  }),
})
