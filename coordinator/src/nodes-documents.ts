import type { KeyObject } from 'node:crypto'
import { canonicalJson } from '@holdfast/base'
import { type DocumentFrame, signDocument } from '@holdfast/link'
import type { Manifest } from '@holdfast/protocol'
import {
  type FreezeDocument,
  mostFrozen,
  type Peer,
  type PeersDocument,
  type PolicyDocument,
} from '@holdfast/protocol/documents'
import { addressesOf } from './leases.ts'
import { type Frozen, frozenNodes, guardiansOf, type NodeRow, portsOf } from './nodes.ts'
import { nodeFault } from './nodes-faults.ts'
import type { Database, Work } from './store.ts'

// Signed documents for agents. A version is taken from one counter for all of them, so "what is newer
// than 17?" is one question for every instance, and a later version of a document is always higher. It
// is never below the time in milliseconds: a store that was restored from a backup has a counter of
// long ago, and agents would take nothing from it, not even that a node is frozen.
// What has not changed is not published again.

export type DocumentName = DocumentFrame['name']

/** Characters; agents refuse more than a million, and the whole session with it. */
const longestDocument = 900_000

/** Who publishes for which cluster, and when: milliseconds since 1970. */
export interface Publisher {
  key: KeyObject
  cluster: string
  now: number
}

/** The store's name of a document: those for one node carry its id. */
export function storedName(name: DocumentName, node?: string): string {
  return name === 'peers' ? `peers:${node ?? ''}` : name
}

/** Publishes a document if it differs from its last version; says whether it did. */
export async function publish(
  work: Work,
  key: KeyObject,
  name: DocumentName,
  document: FreezeDocument | PeersDocument | PolicyDocument,
  now: number,
): Promise<boolean> {
  const body = canonicalJson(document)
  const stored = storedName(name, 'node' in document ? document.node : undefined)
  const last = await work
    .selectFrom('documents')
    .select('body')
    .where('name', '=', stored)
    .executeTakeFirst()
  if (last?.body === body) return false
  const { version, signature } = signDocument(key, {
    name,
    version: Math.max((await newestVersion(work)) + 1, now),
    body,
  })
  await work
    .insertInto('documents')
    .values({ name: stored, version, body, signature })
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ version, body, signature }))
    .execute()
  return true
}

/** The highest version of any document; 0 when there is none. */
export async function newestVersion(database: Database | Work): Promise<number> {
  const { newest } = await database
    .selectFrom('documents')
    .select(({ fn }) => fn.max('version').as('newest'))
    .executeTakeFirstOrThrow()
  return Number(newest ?? 0)
}

export interface AddressedDocument {
  /** The node it is for; undefined when it is for all. */
  node: string | undefined
  frame: DocumentFrame
}

/** What was published after a version, oldest first. */
export async function documentsAfter(
  database: Database,
  version: number,
): Promise<AddressedDocument[]> {
  const rows = await database
    .selectFrom('documents')
    .selectAll()
    .where('version', '>', version)
    .orderBy('version')
    .execute()
  return rows.map(addressed)
}

/** Everything that one node should have. */
export async function documentsFor(database: Database, node: string): Promise<AddressedDocument[]> {
  const rows = await database
    .selectFrom('documents')
    .selectAll()
    .where('name', 'in', [storedName('peers', node), 'freeze', 'policy'])
    .orderBy('version')
    .execute()
  return rows.map(addressed)
}

function addressed(row: {
  name: string
  version: number
  body: string
  signature: string
}): AddressedDocument {
  const [name = '', node] = row.name.split(':')
  const { version, body, signature } = row
  return {
    node,
    frame: { kind: 'document', name: name as DocumentName, version, body, signature }, // `publish` wrote it
  }
}

/**
 * Publishes who is frozen, if that is news.
 * @throws Fault node.too_many_frozen when agents would not take the list, and nobody would be frozen
 */
export async function publishFreeze(work: Work, publisher: Publisher): Promise<boolean> {
  const frozen = await frozenNodes(work)
  if (frozen.length > mostFrozen) throw tooManyFrozen(frozen.length)
  return await publishFrozen(work, publisher, frozen)
}

/**
 * Changes who is frozen, and publishes that in the same transaction. A store of before there was a
 * limit may have more frozen than agents take: it is made shorter step by step, and agents have the
 * last list that they took until it fits again.
 * @throws Fault node.too_many_frozen when the change makes a list longer that agents would not take
 */
export async function changeFreeze(
  work: Work,
  publisher: Publisher,
  change: (work: Work) => Promise<void>,
): Promise<void> {
  const before = await frozenNodes(work)
  await change(work)
  const frozen = await frozenNodes(work)
  if (frozen.length <= mostFrozen) await publishFrozen(work, publisher, frozen)
  else if (frozen.length > before.length) throw tooManyFrozen(frozen.length)
}

async function publishFrozen(
  work: Work,
  { key, cluster, now }: Publisher,
  frozen: Frozen[],
): Promise<boolean> {
  const whole = { cluster, frozen }
  // Who is frozen must reach everybody; why is for people, who can ask the coordinator.
  const document =
    canonicalJson(whole).length <= longestDocument
      ? whole
      : { cluster, frozen: frozen.map((each) => ({ ...each, reason: '' })) }
  return await publish(work, key, 'freeze', document, now)
}

function tooManyFrozen(count: number): Error {
  const text = `${count} nodes would be frozen, or removed before their guardians have destroyed their keys; agents take a list of ${mostFrozen}`
  return nodeFault('node.too_many_frozen', text, {
    hint: 'unfreeze those that need it no more, or remove frozen ones and wait for their guardians: holdfast node list',
  })
}

/** A node that was removed and comes back is not frozen any more. */
export async function readmit(work: Work, publisher: Publisher, node: string): Promise<void> {
  const list = await work
    .selectFrom('documents')
    .select('body')
    .where('name', '=', 'freeze')
    .executeTakeFirst()
  if (list?.body.includes(node) === true) await publishFreeze(work, publisher)
}

export async function publishPolicy(
  work: Work,
  { key, cluster, now }: Publisher,
  manifest: Manifest,
  digest: string,
): Promise<boolean> {
  const { guardians, vault, services, healthChecks, twoPersonRule, holders } = manifest
  const named = 'keys' in holders ? { holders } : {}
  const excerpt = { guardians, vault, services, healthChecks, twoPersonRule, ...named }
  return await publish(work, key, 'policy', { cluster, manifest: digest, ...excerpt }, now)
}

/**
 * Publishes for each of these nodes the list of machines that it may have tunnels with: its
 * guardians, its wards, and those that a re-share under way will add. Unknown nodes are passed over.
 */
export async function publishPeers(
  work: Work,
  { key, cluster, now }: Publisher,
  nodes: Iterable<string>,
): Promise<number> {
  const guardians = await guardianSets(work)
  const wards = new Map<string, Set<string>>()
  for (const [ward, set] of guardians)
    for (const guardian of set) wards.set(guardian, (wards.get(guardian) ?? new Set()).add(ward))
  let published = 0
  for (const node of nodes) {
    const own = guardians.get(node)
    if (own === undefined) continue
    const peers = await peersFor(work, node, own, wards.get(node) ?? new Set())
    if (await publish(work, key, 'peers', { cluster, node, peers }, now)) published += 1
  }
  return published
}

/** Every node's guardians, in one pass: asking for each node's wards alone would read all each time. */
async function guardianSets(work: Work): Promise<Map<string, Set<string>>> {
  const rows = await work
    .selectFrom('nodes')
    .select(['node', 'guardians'])
    .where('phase', 'not in', ['left', 'wiped'])
    .execute()
  const sets = new Map(rows.map((row) => [row.node, new Set(guardiansOf(row))]))
  const coming = await work
    .selectFrom('reshares')
    .select(['ward', 'guardians'])
    .where('state', 'in', ['preparing', 'ordered'])
    .execute()
  for (const row of coming)
    for (const guardian of guardiansOf(row)) sets.get(row.ward)?.add(guardian)
  return sets
}

async function peersFor(
  work: Work,
  node: string,
  guardians: ReadonlySet<string>,
  wards: ReadonlySet<string>,
): Promise<Peer[]> {
  const ids = [...new Set([...guardians, ...wards])].filter((id) => id !== node).sort()
  if (ids.length === 0) return []
  const rows = await work
    .selectFrom('nodes')
    .selectAll()
    .where('node', 'in', ids)
    .orderBy('node')
    .execute()
  const addresses = await addressesOf(work, ids)
  return rows.flatMap((row) => {
    const address = addresses.get(row.node)
    return address === undefined ? [] : [peerOf(row, address, relationOf(row, guardians, wards))]
  })
}

function relationOf(
  { node }: NodeRow,
  guardians: ReadonlySet<string>,
  wards: ReadonlySet<string>,
): Peer['relation'] {
  if (guardians.has(node) && wards.has(node)) return 'both'
  return guardians.has(node) ? 'guardian' : 'ward'
}

function peerOf(row: NodeRow, address: string, relation: Peer['relation']): Peer {
  const { node, name, identity, wireguard } = row
  const ports = portsOf(row)
  return {
    node,
    name,
    relation,
    identity,
    wireguard,
    address,
    endpoint: `${row.address}:${ports.wireguard}`,
    urls: [`https://${row.address}:${ports.peer}`],
  }
}
