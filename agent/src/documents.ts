import { createPublicKey, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { DurableRecord, ensureDirectory, parseJson } from '@holdfast/base'
import { checkDocument, type DocumentFrame } from '@holdfast/link'
import {
  freezeDocumentSchema,
  type PeersDocument,
  type PolicyDocument,
  peersDocumentSchema,
  policyDocumentSchema,
} from '@holdfast/protocol/documents'
import { z } from 'zod'
import { agentFault } from './faults.ts'

// The coordinator's signed documents as this node has them: who its peers are, who is frozen, what the
// manifest says. Each is kept as it was signed and checked again when it is read; an older version
// never replaces a newer one.

const frameSchema = z.strictObject({
  kind: z.literal('document'),
  name: z.enum(['peers', 'freeze', 'policy']),
  version: z.number().int(),
  body: z.string(),
  signature: z.string(),
})

export interface DocumentsOptions {
  directory: string
  cluster: string
  node: string
  /** PEM of the key that signs them. */
  commandKey: string
}

export class Documents {
  readonly #options: DocumentsOptions
  readonly #key: KeyObject
  readonly #versions = new Map<DocumentFrame['name'], number>()
  #frozen = new Map<string, string>()
  peers: PeersDocument | undefined
  policy: PolicyDocument | undefined

  private constructor(options: DocumentsOptions) {
    this.#options = options
    this.#key = createPublicKey(options.commandKey)
  }

  /** Reads what is kept. @throws Fault link.document_invalid when a file was changed */
  static async open(options: DocumentsOptions): Promise<Documents> {
    const documents = new Documents(options)
    await ensureDirectory(join(options.directory, 'documents'))
    for (const name of ['freeze', 'peers', 'policy'] as const) {
      const frame = await documents.#record(name).read()
      if (frame !== undefined) documents.#use(frame)
    }
    return documents
  }

  /**
   * Takes a document in; false when it is not newer.
   * @throws Fault link.document_invalid, agent.document_foreign
   */
  async take(frame: DocumentFrame): Promise<boolean> {
    if (frame.version <= (this.#versions.get(frame.name) ?? -1)) return false
    const use = this.#read(frame)
    await this.#record(frame.name).write(frame)
    use()
    return true
  }

  /** Why a node is frozen, if it is. */
  frozen(node: string): string | undefined {
    return this.#frozen.get(node)
  }

  #record(name: DocumentFrame['name']): DurableRecord<DocumentFrame> {
    const path = join(this.#options.directory, 'documents', `${name}.json`)
    return new DurableRecord(path, (value) => frameSchema.parse(value))
  }

  #use(frame: DocumentFrame): void {
    this.#read(frame)()
  }

  /** Checks a document and gives what puts it in force. */
  #read(frame: DocumentFrame): () => void {
    checkDocument(this.#key, frame)
    const value = parseJson(frame.body, `the document ${frame.name}`, 1_000_000)
    const inForce = this.#parse(frame.name, value)
    return () => {
      inForce()
      this.#versions.set(frame.name, frame.version)
    }
  }

  #parse(name: DocumentFrame['name'], value: unknown): () => void {
    if (name === 'freeze') {
      const { cluster, frozen } = freezeDocumentSchema.parse(value)
      this.#requireOurs(cluster)
      return () => {
        this.#frozen = new Map(frozen.map(({ node, reason }) => [node, reason]))
      }
    }
    if (name === 'peers') {
      const peers = peersDocumentSchema.parse(value)
      this.#requireOurs(peers.cluster, peers.node)
      return () => {
        this.peers = peers
      }
    }
    const policy = policyDocumentSchema.parse(value)
    this.#requireOurs(policy.cluster)
    return () => {
      this.policy = policy
    }
  }

  #requireOurs(cluster: string, node = this.#options.node): void {
    if (cluster === this.#options.cluster && node === this.#options.node) return
    throw agentFault('agent.document_foreign', 'the document is for another cluster or node')
  }
}
