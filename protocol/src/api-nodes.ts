import { z } from '@hono/zod-openapi'
import { commandKinds, nodePhases } from './codes.ts'
import { nodeReportSchema } from './frames.ts'
import { idSchema, momentSchema, nameSchema, nodeIdSchema } from './names.ts'
import { route } from './route.ts'

const done = z.object({ done: z.boolean() })
const byId = z.object({ id: idSchema })
const byNode = z.object({ node: nodeIdSchema })

/** How far a node's move to other guardians has come. */
export const reshareSchema = z
  .object({
    state: z.enum(['planned', 'preparing', 'ordered', 'retiring', 'failed']),
    cause: z.enum(['first', 'genesis', 'loss', 'leave', 'rules', 'join', 'schedule']),
    /** 0 while it is planned. */
    epoch: z.number().int(),
    since: momentSchema,
    /** Why it waits or has failed. */
    reason: z.string().optional(),
  })
  .openapi('Reshare')

export const nodeSchema = z
  .object({
    node: nodeIdSchema,
    name: nameSchema,
    address: z.string(),
    /** Where its peer endpoint listens at that address. */
    peerPort: z.number().int().optional(),
    phase: z.enum(nodePhases),
    connected: z.boolean(),
    heardAt: momentSchema.optional(),
    domain: nameSchema.optional(),
    epoch: z.number().int(),
    threshold: z.number().int(),
    guardians: z.array(nodeIdSchema),
    wards: z.array(nodeIdSchema),
    frozen: z.boolean(),
    report: nodeReportSchema.optional(),
    /** While it moves to other guardians, or has failed to. */
    reshare: reshareSchema.optional(),
  })
  .openapi('Node')

export const inviteSchema = z
  .object({
    id: idSchema,
    label: z.string(),
    expires: momentSchema,
    uses: z.number().int(),
    used: z.number().int(),
    reserved: z.number().int(),
    domain: nameSchema.optional(),
  })
  .openapi('Invite')

export const commandSchema = z
  .object({
    id: idSchema,
    node: nodeIdSchema,
    command: z.enum(commandKinds),
    by: z.string(),
    state: z.enum([
      'confirm',
      'preparing',
      'waiting',
      'sent',
      'running',
      'done',
      'failed',
      'expired',
    ]),
    created: momentSchema,
    finished: momentSchema.optional(),
    progress: z.string().optional(),
    output: z.string().optional(),
    result: z.record(z.string(), z.unknown()).optional(),
    code: z.string().optional(),
    message: z.string().optional(),
  })
  .openapi('Command')

export const nodeRoutes = {
  list: route({
    id: 'nodes',
    method: 'get',
    path: '/v1/nodes',
    summary: 'All nodes',
    access: 'user',
    output: z.object({ nodes: z.array(nodeSchema) }),
  }),
  get: route({
    id: 'node',
    method: 'get',
    path: '/v1/nodes/{node}',
    summary: 'One node',
    access: 'user',
    params: byNode,
    output: nodeSchema,
  }),
  reshares: route({
    id: 'reshares',
    method: 'get',
    path: '/v1/reshares',
    summary: 'Who moves to other guardians, and who has too few',
    access: 'user',
    output: z.object({
      reshares: z.array(
        reshareSchema.extend({ node: nodeIdSchema, guardians: z.array(nodeIdSchema) }),
      ),
      /** Nodes whose living guardians are fewer than threshold plus margin. */
      belowMargin: z.array(nodeIdSchema),
    }),
  }),
  invite: route({
    id: 'createInvite',
    method: 'post',
    path: '/v1/invites',
    summary: 'An invite token; shown once',
    access: ['admin', 'operator'],
    body: z.strictObject({
      label: z.string().max(100).default(''),
      minutes: z.number().int().min(1).max(10_080).default(60),
      uses: z.number().int().min(1).max(10_000).default(1),
      domain: nameSchema.optional(),
    }),
    output: inviteSchema.extend({ token: z.string() }),
  }),
  invites: route({
    id: 'invites',
    method: 'get',
    path: '/v1/invites',
    summary: 'Invites and how they were used',
    access: ['admin', 'operator', 'auditor'],
    output: z.object({ invites: z.array(inviteSchema) }),
  }),
  revokeInvite: route({
    id: 'revokeInvite',
    method: 'delete',
    path: '/v1/invites/{id}',
    summary: 'Revoke an invite',
    access: ['admin', 'operator'],
    params: byId,
    output: done,
  }),
  enrol: route({
    id: 'enrol',
    method: 'post',
    path: '/v1/enrolments',
    summary: 'Enrol the node that shows this code at this address',
    access: ['admin', 'operator'],
    body: z.strictObject({
      invite: z.string().max(100),
      address: z.string().max(300),
      code: z.string().max(40),
      name: nameSchema,
      genesis: z.boolean().default(false),
    }),
    output: z.object({ enrolment: idSchema, node: nodeIdSchema, state: z.string() }),
  }),
  enrolment: route({
    id: 'enrolment',
    method: 'get',
    path: '/v1/enrolments/{id}',
    summary: 'How far an enrolment has come',
    access: ['admin', 'operator'],
    params: byId,
    output: z.object({
      enrolment: idSchema,
      node: nodeIdSchema.optional(),
      state: z.enum(['reserved', 'sent', 'formatting', 'proving', 'enrolled', 'failed']),
      code: z.string().optional(),
      message: z.string().optional(),
    }),
  }),
  command: route({
    id: 'sendCommand',
    method: 'post',
    path: '/v1/nodes/{node}/commands',
    summary: 'Tell a node to do something',
    access: ['admin', 'operator'],
    params: byNode,
    body: z.strictObject({
      command: z.enum(commandKinds),
      arguments: z.record(z.string(), z.unknown()).default({}),
      confirmation: z.string().max(100).optional(),
    }),
    output: commandSchema,
  }),
  commands: route({
    id: 'commands',
    method: 'get',
    path: '/v1/nodes/{node}/commands',
    summary: 'What a node was told, and what came of it',
    access: 'user',
    params: byNode,
    output: z.object({ commands: z.array(commandSchema) }),
  }),
  commandState: route({
    id: 'command',
    method: 'get',
    path: '/v1/commands/{id}',
    summary: 'One command',
    access: 'user',
    params: byId,
    output: commandSchema,
  }),
  approve: route({
    id: 'approveCommand',
    method: 'post',
    path: '/v1/commands/{id}/approvals',
    summary: 'The second person of the two-person rule',
    access: ['admin', 'operator'],
    params: byId,
    output: commandSchema,
  }),
  freeze: route({
    id: 'freeze',
    method: 'post',
    path: '/v1/nodes/{node}/freezes',
    summary: 'No guardian releases to this node any more',
    access: ['admin', 'operator'],
    params: byNode,
    body: z.strictObject({ reason: z.string().max(300) }),
    output: done,
  }),
  unfreeze: route({
    id: 'unfreeze',
    method: 'delete',
    path: '/v1/nodes/{node}/freezes',
    summary: 'Release to this node again',
    access: ['admin'],
    params: byNode,
    output: done,
  }),
  remove: route({
    id: 'removeNode',
    method: 'delete',
    path: '/v1/nodes/{node}',
    summary: 'Forget a node that has left or is lost',
    access: ['admin'],
    params: byNode,
    output: done,
  }),
}
