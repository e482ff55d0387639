import { z } from '@hono/zod-openapi'
import { holderStatusSchema, signedStatementSchema } from './api-status.ts'
import { doneSchema } from './api-users.ts'
import { ceremonyKinds, ceremonyStates } from './codes.ts'
import {
  bytesSchema,
  digestSchema,
  idSchema,
  momentSchema,
  nameSchema,
  sealedSchema,
} from './names.ts'
import { everyState, route } from './route.ts'

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
