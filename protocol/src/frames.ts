import { z } from 'zod'
import { commandKinds, nodePhases } from './codes.ts'
import {
  bytesSchema,
  digestSchema,
  idSchema,
  momentSchema,
  namedHoldersSchema,
  nameSchema,
  nodeIdSchema,
  publicKeySchema,
} from './names.ts'

// What an agent and a coordinator say to each other over one WebSocket, agent's side outbound.
// Every frame is one JSON text message. A command is delivered at least once and acted on at most
// once: the agent remembers ids it has finished and answers them again from its record.

/** Where agents open their WebSocket. */
export const agentPath = '/v1/agent'

const portSchema = z.number().int().min(1).max(65_535)

/** How a vault stands: what is there, what is needed. */
export const waySchema = z.strictObject({
  keyslot: z.number().int(),
  purpose: z.enum(['automatic', 'recovery', 'owner', 'foreign']),
  label: z.string().max(300),
  state: z.enum(['proven', 'failed', 'not_tried']),
  provenAt: momentSchema.optional(),
  margin: z.number().int().optional(),
})

/** More than any node reaches. A report of the highest whole number would leave no epoch after it. */
const highestEpoch = 1_000_000_000

export const nodeReportSchema = z.strictObject({
  phase: z.enum(nodePhases),
  generation: z.number().int(),
  epoch: z.number().int().min(0).max(highestEpoch),
  threshold: z.number().int(),
  guardians: z.array(nodeIdSchema).max(64),
  wards: z.number().int(),
  ways: z.array(waySchema).max(64),
  mapped: z
    .boolean()
    .describe('true when device-mapper holds the vault open; otherwise it was only proven'),
  network: z.enum(['kernel-wireguard', 'wireguard-go', 'mutual-tls']),
  networkReason: z.string().max(500).optional().describe('why there is no tunnel'),
  keys: z
    .enum(['tpm', 'file'])
    .optional()
    .describe("where the node's own private keys are: sealed by its TPM, or in a file"),
  held: z
    .string()
    .max(300)
    .optional()
    .describe('why the node stays locked until an operator opens it'),
  services: z.record(nameSchema, z.enum(['running', 'failed', 'stopped', 'refused'])),
  health: z
    .record(nameSchema, z.enum(['passing', 'failing', 'waiting', 'refused']))
    .optional()
    .describe("the manifest's health checks; `waiting` until their time is up"),
  incidents: z.array(z.string().max(300)).max(32),
  lastErrors: z.array(z.string().max(500)).max(8),
  uptimeSeconds: z.number().int(),
})
export type NodeReport = z.infer<typeof nodeReportSchema>

/** Agent to coordinator. */
export const agentFrameSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('hello'),
    node: nodeIdSchema,
    protocol: z.literal(1),
    /** The highest coordinator generation this node has witnessed, with the welcome's proof of it. */
    witnessed: z
      .strictObject({ cluster: idSchema, generation: z.number().int(), proof: bytesSchema })
      .optional(),
    report: nodeReportSchema,
  }),
  z.strictObject({ kind: z.literal('heartbeat'), sequence: z.number().int() }),
  z.strictObject({ kind: z.literal('report'), report: nodeReportSchema }),
  z.strictObject({
    kind: z.literal('progress'),
    command: idSchema,
    text: z.string().max(500),
    done: z.number().optional(),
    of: z.number().optional(),
  }),
  z.strictObject({ kind: z.literal('output'), command: idSchema, text: z.string().max(65_536) }),
  z.strictObject({
    kind: z.literal('result'),
    command: idSchema,
    ok: z.boolean(),
    code: z.string().max(100).optional(),
    message: z.string().max(2000).optional(),
    data: z.record(z.string(), z.unknown()).optional(),
  }),
  /** An alarm that cannot wait: a release asked for, a canary touched, a clone seen. */
  z.strictObject({
    kind: z.literal('incident'),
    code: z.string().max(100),
    text: z.string().max(1000),
    at: momentSchema,
  }),
  /** A public exchange key this guardian made for a ward, signed by its identity key. */
  z.strictObject({
    kind: z.literal('ward-key'),
    ward: nodeIdSchema,
    epoch: z.number().int(),
    key: z.record(z.string(), z.unknown()),
    signature: bytesSchema,
  }),
])
export type AgentFrame = z.infer<typeof agentFrameSchema>

/** A guardian as its ward knows it. */
export const guardianSchema = z.strictObject({
  node: nodeIdSchema,
  addresses: z.array(z.string().max(300)).min(1).max(8),
  identity: publicKeySchema,
  domain: nameSchema.optional(),
})
export type Guardian = z.infer<typeof guardianSchema>

/** With the key that it made for one ward and epoch, signed by its identity. */
export const boundGuardianSchema = guardianSchema.extend({
  key: z.record(z.string(), z.unknown()),
  signature: bytesSchema,
})

/** Coordinator to agent. */
export const coordinatorFrameSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('welcome'),
    cluster: idSchema,
    generation: z.number().int(),
    /** The identity key's signature over cluster and generation: one node's word is not enough. */
    proof: bytesSchema,
    state: z.enum(['recovery', 'running']),
    time: momentSchema,
    heartbeatSeconds: z.number().int(),
  }),
  z.strictObject({ kind: z.literal('heartbeat'), sequence: z.number().int() }),
  z.strictObject({
    kind: z.literal('command'),
    id: idSchema,
    command: z.enum(commandKinds),
    arguments: z.record(z.string(), z.unknown()),
    /** Who asked, for the node's own record. */
    by: z.string().max(100),
    /** Rises; a node refuses a command that is not above all whose results it has forgotten. */
    issue: z.number().int().min(0),
    /** By the command key over the canonical rest together with the cluster and the node. */
    signature: bytesSchema,
  }),
  /** Signed documents: peers, freeze list, manifest excerpt. Highest version wins. */
  z.strictObject({
    kind: z.literal('document'),
    name: z.enum(['peers', 'freeze', 'policy']),
    version: z.number().int(),
    body: z.string().max(1_000_000),
    signature: bytesSchema,
  }),
  /** Asks a guardian to make, keep or forget the exchange key of a ward's epoch. */
  z.strictObject({
    kind: z.literal('ward'),
    action: z.enum(['prepare', 'retire']),
    ward: nodeIdSchema,
    identity: publicKeySchema,
    epoch: z.number().int(),
    id: idSchema,
    /** As of a command: whoever has only the coordinator's identity cannot have keys destroyed. */
    signature: bytesSchema,
  }),
  /** Tells a ward to move to a new set of guardians. */
  z.strictObject({
    kind: z.literal('reshare'),
    id: idSchema,
    epoch: z.number().int(),
    threshold: z.number().int(),
    guardians: z.array(boundGuardianSchema).max(63),
    /** As of a command. */
    signature: bytesSchema,
  }),
])
export type CoordinatorFrame = z.infer<typeof coordinatorFrameSchema>

/** What a node signs to be known: sent at enrolment, checked against the code on its console. */
export const nodeCardSchema = z.strictObject({
  node: nodeIdSchema,
  identity: publicKeySchema,
  exchange: publicKeySchema.describe('P-256 key for secrets meant for this node'),
  wireguard: z.string().max(64),
  certificateRequest: z.string().max(8192),
  /** Where it will listen: for its wards (HTTPS) and for tunnels (UDP). */
  ports: z.strictObject({ peer: portSchema, wireguard: portSchema }),
  device: z.strictObject({
    path: z.string().max(300),
    bytes: z.number().int(),
    /** `restored`: wiped by panic 2, then brought back by the holders; it is adopted, not formatted. */
    header: z.enum(['none', 'known', 'foreign', 'restored']),
  }),
})
export type NodeCard = z.infer<typeof nodeCardSchema>

/** What the coordinator gives a node at enrolment, over the sealed channel. */
export const enrolmentSchema = z.strictObject({
  cluster: idSchema,
  name: nameSchema,
  certificate: z.string().max(8192),
  authority: z.string().max(8192),
  /** `https://host:port`; agents connect to `agentPath` there. */
  coordinators: z.array(z.string().max(300)).min(1).max(16),
  coordinatorIdentity: digestSchema,
  commandKey: publicKeySchema,
  /** In the tunnel, with the length of the pool's prefix: `10.88.0.5/16`. */
  address: z.string().max(64),
  genesis: z.boolean(),
  /** For the first node: the holders' policy; otherwise guardians come by `reshare`. */
  holders: namedHoldersSchema.optional(),
  pins: z.record(z.string(), z.unknown()).optional(),
})
export type Enrolment = z.infer<typeof enrolmentSchema>
