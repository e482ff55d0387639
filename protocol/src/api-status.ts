import { z } from '@hono/zod-openapi'
import { ceremonyKinds, coordinatorStates, reasonCodes } from './codes.ts'
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

export const holderStatusSchema = z
  .object({ name: nameSchema, kid: digestSchema, provenAt: momentSchema.optional() })
  .openapi('HolderStatus')

const statusSchema = z
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
