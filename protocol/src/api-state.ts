import { z } from '@hono/zod-openapi'
import { ceremonySchema } from './api-ceremonies.ts'
import { doneSchema } from './api-users.ts'
import { manifestSchema } from './manifest.ts'
import { digestSchema, idSchema, momentSchema, nameSchema } from './names.ts'
import { route } from './route.ts'

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

const byId = z.object({ id: idSchema })

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
    params: byId,
    output: keyWaySchema,
  }),
  remove: route({
    id: 'removeKeyWay',
    method: 'delete',
    path: '/v1/ways/{id}',
    summary: 'Remove a way; never the last',
    access: ['admin'],
    states: ['ready', 'running'],
    params: byId,
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
    output: z.string(),
    media: 'application/x-ndjson',
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
