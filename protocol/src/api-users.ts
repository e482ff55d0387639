import { z } from '@hono/zod-openapi'
import { roleSchema } from './manifest.ts'
import { digestSchema, idSchema, momentSchema, nameSchema } from './names.ts'
import { route } from './route.ts'

/** The answer of a route that only does something. */
export const doneSchema = z.object({ done: z.boolean() }).openapi('Done')

const tokenParams = z.object({ id: idSchema })
const userParams = z.object({ name: nameSchema })
const tokenSchema = z
  .object({
    id: idSchema,
    user: nameSchema,
    label: z.string(),
    scopes: z.array(roleSchema),
    expires: momentSchema,
    lastUsed: momentSchema.optional(),
  })
  .openapi('Token')

export const userRoutes = {
  list: route({
    id: 'users',
    method: 'get',
    path: '/v1/users',
    summary: 'Users and their roles',
    access: ['admin', 'auditor'],
    states: ['ready', 'running'],
    output: z.object({
      users: z.array(
        z.object({
          name: nameSchema,
          roles: z.array(roleSchema),
          lockedUntil: momentSchema.optional(),
        }),
      ),
    }),
  }),
  set: route({
    id: 'setPassword',
    method: 'put',
    path: '/v1/users/{name}/password',
    summary: "Set a user's password; one's own, or as admin",
    access: 'user',
    states: ['ready', 'running'],
    params: userParams,
    body: z.strictObject({ password: z.string().min(12).max(200) }),
    output: doneSchema,
  }),
  login: route({
    id: 'login',
    method: 'post',
    path: '/v1/sessions',
    summary: 'Begin a session',
    access: 'anyone',
    states: ['ready', 'running'],
    body: z.strictObject({ user: nameSchema, password: z.string().max(200) }),
    output: z.object({ csrf: z.string(), expires: momentSchema, roles: z.array(roleSchema) }),
  }),
  logout: route({
    id: 'logout',
    method: 'delete',
    path: '/v1/sessions',
    summary: 'End this session',
    access: 'user',
    states: ['ready', 'running'],
    output: doneSchema,
  }),
  tokens: route({
    id: 'tokens',
    method: 'get',
    path: '/v1/tokens',
    summary: 'API tokens',
    access: 'user',
    states: ['ready', 'running'],
    output: z.object({ tokens: z.array(tokenSchema) }),
  }),
  createToken: route({
    id: 'createToken',
    method: 'post',
    path: '/v1/tokens',
    summary: 'A scoped API token; shown once',
    access: 'user',
    states: ['ready', 'running'],
    body: z.strictObject({
      label: z.string().max(100),
      scopes: z.array(roleSchema).min(1),
      days: z.number().int().min(1).max(3650).default(90),
    }),
    output: tokenSchema.extend({ token: z.string() }),
  }),
  revokeToken: route({
    id: 'revokeToken',
    method: 'delete',
    path: '/v1/tokens/{id}',
    summary: 'Revoke an API token',
    access: 'user',
    states: ['ready', 'running'],
    params: tokenParams,
    output: doneSchema,
  }),
  audit: route({
    id: 'audit',
    method: 'get',
    path: '/v1/audit',
    summary: 'The hash-chained audit log',
    access: ['admin', 'auditor'],
    states: ['ready', 'running'],
    query: z.object({
      after: z.coerce.number().int().default(0),
      limit: z.coerce.number().int().min(1).max(1000).default(200),
    }),
    output: z.object({
      entries: z.array(
        z.object({
          sequence: z.number().int(),
          at: momentSchema,
          actor: z.string(),
          action: z.string(),
          subject: z.string(),
          outcome: z.string(),
          data: z.record(z.string(), z.unknown()),
          /** The hash of the entry before: with it the chain can be followed anywhere. */
          previous: digestSchema,
          hash: digestSchema,
        }),
      ),
      head: digestSchema,
    }),
  }),
  verifyAudit: route({
    id: 'verifyAudit',
    method: 'post',
    path: '/v1/audit/verifications',
    summary: 'Check the chain from end to end',
    access: ['admin', 'auditor'],
    states: ['ready', 'running'],
    output: z.object({
      entries: z.number().int(),
      intact: z.boolean(),
      repairs: z.number().int(),
      firstBroken: z.number().int().optional(),
    }),
  }),
}
