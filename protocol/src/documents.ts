import { z } from 'zod'
import {
  digestSchema,
  idSchema,
  momentSchema,
  namedHoldersSchema,
  nameSchema,
  nodeIdSchema,
  publicKeySchema,
} from './names.ts'

// Bodies of the signed documents that a coordinator sends to agents. Each names its cluster and, if
// it is meant for one node, that node: a signature must not be worth anything elsewhere.

/** A machine that a node may talk to, and why. */
const peerSchema = z.strictObject({
  node: nodeIdSchema,
  name: nameSchema,
  relation: z.enum(['guardian', 'ward', 'both', 'coordinator']),
  identity: publicKeySchema,
  /** X25519 public key, base64 as `wg` writes it. */
  wireguard: z.string().max(64),
  /** In the tunnel, without prefix length. */
  address: z.string().max(64),
  /** `host:port` of its tunnel, if it can be reached from outside. */
  endpoint: z.string().max(300).optional(),
  /** `https://host:port` of its peer endpoint, outside of the tunnel. */
  urls: z.array(z.string().max(300)).max(8),
})
export type Peer = z.infer<typeof peerSchema>

/** Everybody that a node may have a tunnel with; nobody else. */
export const peersDocumentSchema = z.strictObject({
  cluster: idSchema,
  node: nodeIdSchema,
  peers: z.array(peerSchema).max(1024),
})
export type PeersDocument = z.infer<typeof peersDocumentSchema>

/** Agents take no longer freeze list; without reasons, this many fit into a document. */
export const mostFrozen = 10_000

/** Nodes that get no share from any guardian. */
export const freezeDocumentSchema = z.strictObject({
  cluster: idSchema,
  frozen: z
    .array(z.strictObject({ node: nodeIdSchema, reason: z.string().max(300), since: momentSchema }))
    .max(mostFrozen),
})
export type FreezeDocument = z.infer<typeof freezeDocumentSchema>

/** What agents need of the manifest. */
export const policyDocumentSchema = z.strictObject({
  cluster: idSchema,
  /** Digest of the manifest it is taken from. */
  manifest: digestSchema,
  guardians: z.record(z.string(), z.unknown()),
  /** `pins` of the manifest's vault template, if it has any. */
  vault: z.looseObject({ pins: z.record(z.string(), z.unknown()).optional() }),
  /** Absent when the manifest states that there will be no recovery. */
  holders: namedHoldersSchema.optional(),
  services: z.record(nameSchema, z.unknown()),
  healthChecks: z.record(nameSchema, z.unknown()),
  twoPersonRule: z.boolean(),
})
export type PolicyDocument = z.infer<typeof policyDocumentSchema>
