import { z } from '@hono/zod-openapi'
import { doneSchema } from './api-users.ts'
import { ceremonyKinds, ceremonyStates, coordinatorStates, reasonCodes } from './codes.ts'
import { manifestSchema } from './manifest.ts'
import {
  bytesSchema,
  digestSchema,
  idSchema,
  momentSchema,
  nameSchema,
  publicKeySchema,
  sealedSchema,
} from './names.ts'
import { everyState, route } from './route.ts'

/** One way to the data key: proven when, and whether it needs people. */
export const keyWaySchema = z
  .object({
    id: idSchema,
    kind: z.enum(['host-key', 'tpm2', 'tang', 'holders']),
    label: z.string(),
    generation: z.number().int(),
    state: z.enum(['active', 'prepared', 'retired']),
    provenAt: momentSchema.optional(),
  })
  .openapi('KeyWay')

export const holderStatusSchema = z
  .object({ name: nameSchema, kid: digestSchema, provenAt: momentSchema.optional() })
  .openapi('HolderStatus')

export const statusSchema = z
  .object({
    state: z.enum(coordinatorStates),
    reason: z.enum(reasonCodes),
    text: z.string(),
    hint: z.string(),
    cluster: idSchema.optional(),
    name: nameSchema.optional(),
    instance: z.string(),
    generation: z.number().int().optional(),
    identity: digestSchema,
    holders: z
      .object({
        threshold: z.number().int(),
        list: z.array(holderStatusSchema),
        provenWithin90Days: z.number().int(),
      })
      .optional(),
    ceremony: z
      .object({
        id: idSchema,
        kind: z.enum(ceremonyKinds),
        answered: z.array(nameSchema),
        missing: z.number().int(),
        expires: momentSchema,
      })
      .optional(),
    nodes: z
      .object({ total: z.number().int(), connected: z.number().int(), locked: z.number().int() })
      .optional(),
    alarms: z.array(z.string()),
  })
  .openapi('Status')

/** A document signed by the identity key, so that pinned clients know who says it. */
export const signedStatementSchema = z
  .object({ statement: z.string(), signature: bytesSchema, key: publicKeySchema })
  .openapi('SignedStatement')

export const statusRoutes = {
  live: route({
    id: 'live',
    method: 'get',
    path: '/livez',
    summary: 'Is the process alive',
    access: 'anyone',
    states: everyState,
    output: z.object({ alive: z.boolean() }),
  }),
  ready: route({
    id: 'ready',
    method: 'get',
    path: '/readyz',
    summary: 'May traffic be sent here; 503 while sealed',
    access: 'anyone',
    states: everyState,
    output: z.object({ ready: z.boolean() }),
  }),
  status: route({
    id: 'status',
    method: 'get',
    path: '/v1/status',
    summary: 'State, reason, who is needed',
    access: 'anyone',
    states: everyState,
    output: statusSchema,
  }),
  identity: route({
    id: 'identity',
    method: 'get',
    path: '/v1/identity',
    summary: 'The state, signed by the long-lived identity key',
    access: 'anyone',
    states: everyState,
    query: z.object({ nonce: bytesSchema.max(64).optional() }),
    output: signedStatementSchema,
  }),
  claim: route({
    id: 'claim',
    method: 'post',
    path: '/v1/claim',
    summary: 'Take a new coordinator with its one-time local token',
    access: 'anyone',
    states: ['uninitialised', 'recovery'],
    body: z.strictObject({
      token: z.string().max(100),
      user: nameSchema,
      password: z.string().min(12).max(200),
      recoveryOfOldState: z.literal('give up').optional(),
    }),
    output: z.object({ cluster: idSchema }),
  }),
  join: route({
    id: 'joinCluster',
    method: 'post',
    path: '/v1/instances',
    summary: 'What another instance needs, for the one-time token from a running one',
    access: 'proof',
    states: ['ready', 'running'],
    body: z.strictObject({
      token: z.string().max(100),
      /** The new instance's name, for the audit log. */
      name: nameSchema,
      /** P-256; what it gets is sealed to it. */
      key: publicKeySchema,
    }),
    output: z.object({ sealed: sealedSchema }),
  }),
}

const answerSchema = z.strictObject({
  holder: nameSchema,
  /** The statement's exact bytes, base64url: what the signature covers. */
  statement: bytesSchema,
  /** By the holder's key: RSA PKCS#1 v1.5 or ECDSA, SHA-256. */
  signature: bytesSchema,
})

export const ceremonySchema = z
  .object({
    id: idSchema,
    kind: z.enum(ceremonyKinds),
    state: z.enum(ceremonyStates),
    digest: digestSchema,
    nonce: bytesSchema,
    generation: z.number().int(),
    threshold: z.number().int(),
    holders: z.array(nameSchema),
    answered: z.array(z.object({ holder: nameSchema, at: momentSchema })),
    rejected: z.array(z.object({ holder: nameSchema, code: z.string(), at: momentSchema })),
    created: momentSchema,
    expires: momentSchema,
    detail: z.record(z.string(), z.unknown()),
  })
  .openapi('Ceremony')

const ceremonyParams = z.object({ id: idSchema })

export const ceremonyRoutes = {
  list: route({
    id: 'ceremonies',
    method: 'get',
    path: '/v1/ceremonies',
    summary: 'Open and past ceremonies',
    access: 'anyone',
    states: everyState,
    output: z.object({ ceremonies: z.array(ceremonySchema) }),
  }),
  get: route({
    id: 'ceremony',
    method: 'get',
    path: '/v1/ceremonies/{id}',
    summary: 'One ceremony: who has answered, who has not',
    access: 'anyone',
    states: everyState,
    params: ceremonyParams,
    output: ceremonySchema,
  }),
  open: route({
    id: 'openCeremony',
    method: 'post',
    path: '/v1/ceremonies',
    summary: 'Begin a ceremony, or find the open one of the same kind and digest',
    access: 'anyone',
    states: ['recovery', 'running'],
    body: z.strictObject({ kind: z.enum(ceremonyKinds), manifest: z.unknown().optional() }),
    output: ceremonySchema,
  }),
  request: route({
    id: 'ceremonyRequest',
    method: 'get',
    path: '/v1/ceremonies/{id}/requests/{holder}',
    summary: "A holder's wrapped share and the statement to sign; also for an air gap",
    access: 'anyone',
    states: ['recovery', 'running'],
    params: z.object({ id: idSchema, holder: nameSchema }),
    output: z
      .object({
        holder: nameSchema,
        kid: digestSchema,
        algorithm: z.string(),
        wrapped: bytesSchema,
        sealed: sealedSchema,

        ...signedStatementSchema.shape,
      })
      .openapi('HolderRequest'),
  }),
  answer: route({
    id: 'answerCeremony',
    method: 'post',
    path: '/v1/ceremonies/{id}/answers',
    summary: "Hand in one holder's signed answer",
    access: 'proof',
    states: ['recovery', 'running'],
    params: ceremonyParams,
    body: answerSchema,
    output: ceremonySchema,
  }),
  cancel: route({
    id: 'cancelCeremony',
    method: 'delete',
    path: '/v1/ceremonies/{id}',
    summary: 'End a ceremony without effect',
    access: ['admin'],
    params: ceremonyParams,
    output: doneSchema,
  }),
  prove: route({
    id: 'proveHolder',
    method: 'post',
    path: '/v1/holders/{name}/proofs',
    summary: 'A holder proves the key; nothing is revealed',
    access: 'proof',
    states: ['recovery', 'ready', 'running'],
    params: z.object({ name: nameSchema }),
    body: answerSchema,
    output: holderStatusSchema,
  }),
  share: route({
    id: 'holderShare',
    method: 'get',
    path: '/v1/holders/{name}/share',
    summary: "A holder's wrapped share of the current data key, to be kept beside the coordinator",
    access: 'anyone',
    states: ['recovery', 'ready', 'running'],
    params: z.object({ name: nameSchema }),
    output: z.object({
      holder: nameSchema,
      kid: digestSchema,
      algorithm: z.string(),
      generation: z.number().int(),
      wrapped: bytesSchema,
      sealed: sealedSchema,
    }),
  }),
  challenge: route({
    id: 'holderChallenge',
    method: 'get',
    path: '/v1/holders/{name}/challenge',
    summary: 'What a holder signs to prove the key',
    access: 'anyone',
    states: ['recovery', 'ready', 'running'],
    params: z.object({ name: nameSchema }),
    output: z.object({
      statement: z.string(),
      wrapped: bytesSchema,
      sealed: sealedSchema,
      kid: digestSchema,
    }),
  }),
}

export const keyRoutes = {
  list: route({
    id: 'keyWays',
    method: 'get',
    path: '/v1/ways',
    summary: 'Ways to the data key',
    access: ['admin', 'auditor'],
    states: ['ready', 'running'],
    output: z.object({ ways: z.array(keyWaySchema) }),
  }),
  add: route({
    id: 'addKeyWay',
    method: 'post',
    path: '/v1/ways',
    summary: 'Add and prove an automatic way',
    access: ['admin'],
    states: ['ready', 'running'],
    body: z.strictObject({
      kind: z.enum(['host-key', 'tpm2', 'tang']),
      config: z.record(z.string(), z.unknown()),
    }),
    output: keyWaySchema,
  }),
  prove: route({
    id: 'proveKeyWay',
    method: 'post',
    path: '/v1/ways/{id}/proofs',
    summary: 'Prove an automatic way',
    access: ['admin', 'operator'],
    states: ['ready', 'running'],
    params: ceremonyParams,
    output: keyWaySchema,
  }),
  remove: route({
    id: 'removeKeyWay',
    method: 'delete',
    path: '/v1/ways/{id}',
    summary: 'Remove a way; never the last',
    access: ['admin'],
    states: ['ready', 'running'],
    params: ceremonyParams,
    output: doneSchema,
  }),
  rotate: route({
    id: 'rotateDataKey',
    method: 'post',
    path: '/v1/data-key/rotations',
    summary: 'New data key, new generation',
    access: ['admin'],
    states: ['ready', 'running'],
    output: z.object({ generation: z.number().int() }),
  }),
  seal: route({
    id: 'sealCoordinator',
    method: 'post',
    path: '/v1/seal',
    summary: 'Forget the data key now',
    access: ['admin'],
    states: ['ready', 'running'],
    output: doneSchema,
  }),
  backup: route({
    id: 'backup',
    method: 'post',
    path: '/v1/backups',
    summary: 'A bundle that restores into recovery',
    access: ['admin'],
    states: ['ready', 'running'],
    output: z.object({ bundle: z.string(), digest: digestSchema }),
  }),
}

export const manifestRoutes = {
  get: route({
    id: 'manifest',
    method: 'get',
    path: '/v1/manifest',
    summary: 'The manifest in force and its digest',
    access: 'user',
    output: z.object({ manifest: manifestSchema, digest: digestSchema, version: z.number().int() }),
  }),
  set: route({
    id: 'setManifest',
    method: 'put',
    path: '/v1/manifest',
    summary: 'The first manifest, or one that needs no approval',
    access: ['admin'],
    states: ['ready', 'running'],
    body: z.strictObject({ manifest: z.unknown() }),
    output: z.object({ digest: digestSchema, ceremony: ceremonySchema.optional() }),
  }),
  check: route({
    id: 'checkManifest',
    method: 'post',
    path: '/v1/manifest/check',
    summary: 'What a manifest would change',
    access: 'user',
    states: ['ready', 'running'],
    body: z.strictObject({ manifest: z.unknown() }),
    output: z.object({
      digest: digestSchema,
      changes: z.array(z.object({ path: z.string(), from: z.unknown(), to: z.unknown() })),
      approvals: z.number().int(),
    }),
  }),
  history: route({
    id: 'manifestHistory',
    method: 'get',
    path: '/v1/manifest/history',
    summary: 'Every manifest that was in force',
    access: ['admin', 'auditor'],
    output: z.object({
      history: z.array(
        z.object({
          version: z.number().int(),
          digest: digestSchema,
          at: momentSchema,
          by: z.string(),
          approvedBy: z.array(nameSchema),
        }),
      ),
    }),
  }),
}
