import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { type Clock, canonicalJson, isFault, messageOf, type Secret } from '@holdfast/base'
import {
  alwaysValid,
  type CardedNode,
  enrolmentUrl,
  fetchCard,
  issue,
  isTunnelKey,
  parseCode,
  parsePool,
} from '@holdfast/link'
import type { Manifest } from '@holdfast/protocol'
import type { Enrolment, NodeCard } from '@holdfast/protocol/frames'
import {
  beginEnrolment,
  type EnrolmentRequest,
  type EnrolmentState,
  enrolmentPatience,
  failEnrolment,
} from './enrolments.ts'
import { reserveAddress } from './leases.ts'
import { readmit } from './nodes-documents.ts'
import { nodeFault } from './nodes-faults.ts'
import { leastGuardians } from './placement.ts'
import { rulesOf } from './reshare-views.ts'
import { isDuplicate, type Store, type Work } from './store.ts'

// Drives one enrolment up to the point where the node has accepted: reserve the invite, read the
// node's card, write node, name and address down, issue the certificate, push. From then on the
// node's own reports move it. A crash in between leaves a reservation, which ends by itself.

export interface EnrolmentDeps {
  store: Store
  clock: Clock
  cluster(): string
  /** PEM certificate of the fleet's authority. */
  authority(): string
  /** PEM of a private key in the sealed state. */
  secret(name: 'authority-key' | 'command-key'): Promise<Secret>
  manifest(): Promise<Manifest>
  /** `https://host:port` of every instance, for the node to connect to. */
  coordinators: readonly string[]
  /** What clients pin. */
  identity: string
}

export interface EnrolmentOrder extends EnrolmentRequest {
  /** As it stands on the node's console. */
  code: string
}

const pushAttempts = 3
const pushPause = 1_000

/**
 * Enrols the node that shows this code at this address. Returns when the node has accepted; whether
 * its vault has been proven is told by the enrolment's state.
 * @throws Fault invite.*, enrolment.*, link.* with the invite given back
 */
export async function enrolNode(
  deps: EnrolmentDeps,
  order: EnrolmentOrder,
  by: string,
): Promise<{ enrolment: string; node: string; state: EnrolmentState }> {
  const { store, clock } = deps
  using code = parseCode(order.code)
  enrolmentUrl(order.address) // an address that cannot be one costs no reservation
  const { enrolmentsPerHour } = (await deps.manifest()).limits
  const { id, domain } = await store.write((work) =>
    beginEnrolment(work, clock, order, by, enrolmentsPerHour),
  )
  try {
    const carded = await fetchCard(order.address, code)
    checkDisk(carded.card)
    checkTunnelKey(carded.card)
    const enrolment = await admit(deps, order, id, domain, carded.card)
    const state = await push(deps, id, carded, enrolment)
    return { enrolment: id, node: carded.card.node, state }
  } catch (error) {
    const reason = isFault(error) ? error.code : 'coordinator.internal'
    await store.write((work) => failEnrolment(work, clock, id, reason, messageOf(error)))
    throw error
  }
}

function checkDisk({ device, node }: NodeCard): void {
  if (device.header === 'none' || device.header === 'restored') return
  const whose = device.header === 'known' ? 'a vault of Holdfast' : 'a header that is not ours'
  throw nodeFault('enrolment.disk_in_use', `${device.path} of the node carries ${whose}`, {
    hint: 'nothing is formatted over it; wipe the disk on the node first if its data may go',
    details: { node, device: device.path },
  })
}

/** Nobody uses nonsense, but everybody who is told of it would have to leave it out. */
function checkTunnelKey({ wireguard }: NodeCard): void {
  if (wireguard === '' || isTunnelKey(wireguard)) return
  throw nodeFault('enrolment.node_failed', "the node's key for tunnels is not one")
}

/** Writes the node down and makes its enrolment. */
async function admit(
  deps: EnrolmentDeps,
  order: EnrolmentOrder,
  id: string,
  domain: string | null,
  card: NodeCard,
): Promise<Enrolment> {
  const manifest = await deps.manifest()
  const pool = parsePool(manifest.network.pool)
  const authority = {
    key: await privateKey(deps, 'authority-key'),
    certificate: deps.authority(),
  }
  const issued = await issue(card.certificateRequest, authority, alwaysValid, [])
  if (issued.node !== card.node)
    throw nodeFault('enrolment.node_failed', "the certificate request is not for the card's key")
  const key = await privateKey(deps, 'command-key')
  const { address, genesis } = await deps.store.write(async (work) => {
    await checkNew(work, card, order.name)
    const kind = genesisOf(await countNodes(work), order.genesis, manifest)
    const now = deps.clock.now()
    const leased = await reserveAddress(work, pool, card.node, now, now + enrolmentPatience)
    await insertNode(work, order, domain, card, { certificate: issued.certificate, genesis: kind })
    await work
      .updateTable('enrolments')
      .set({ node: card.node, genesis: kind ? 1 : 0 })
      .where('id', '=', id)
      .execute()
    await readmit(work, { key, cluster: deps.cluster(), now }, card.node)
    return { address: leased, genesis: kind }
  })
  const commandKey = createPublicKey(key)
  return {
    cluster: deps.cluster(),
    name: order.name,
    certificate: issued.certificate,
    authority: authority.certificate,
    coordinators: [...deps.coordinators],
    coordinatorIdentity: deps.identity,
    commandKey: commandKey.export({ type: 'spki', format: 'pem' }).toString(),
    address: `${address}/${pool.prefix}`,
    genesis,
    // Every vault needs a way back, not only the first node's.
    ...('keys' in manifest.holders ? { holders: manifest.holders } : {}),
    ...(manifest.vault.pins === undefined ? {} : { pins: manifest.vault.pins }),
  }
}

/** Names and keys are unique; a node that has left may come back. */
async function checkNew(work: Work, card: NodeCard, name: string): Promise<void> {
  await checkOwnTunnel(work, card)
  const others = await work
    .selectFrom('nodes')
    .select(['node', 'name', 'phase'])
    .where(({ eb, or }) => or([eb('node', '=', card.node), eb('name', '=', name)]))
    .orderBy(({ eb }) => eb.case().when('node', '=', card.node).then(0).else(1).end())
    .execute()
  for (const other of others) {
    const gone = other.phase === 'left' || other.phase === 'wiped'
    if (other.node === card.node && gone) {
      await work.deleteFrom('nodes').where('node', '=', other.node).execute()
    } else if (other.node === card.node) {
      throw nodeFault('enrolment.node_known', `this node is enrolled already, as ${other.name}`, {
        hint: `if it was lost and set up anew: holdfast node remove ${other.name} --confirm ${other.name}`,
      })
    } else {
      throw nodeFault('enrolment.name_taken', `there is a node named ${name} already`, {
        hint: 'give another name',
      })
    }
  }
}

/** With the tunnel key of another node, its peers would take that one's tunnel down. */
async function checkOwnTunnel(work: Work, { node, wireguard }: NodeCard): Promise<void> {
  if (wireguard === '') return
  const other = await work
    .selectFrom('nodes')
    .select('name')
    .where('wireguard', '=', wireguard)
    .where('node', '!=', node)
    .executeTakeFirst()
  if (other === undefined) return
  const text = `the node shows the key for tunnels of ${other.name}`
  throw nodeFault('enrolment.node_failed', text, {
    hint: `a copied disk? if ${other.name} was set up anew: holdfast node remove ${other.name} --confirm ${other.name}`,
  })
}

async function countNodes(work: Work): Promise<number> {
  const { count } = await work
    .selectFrom('nodes')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('phase', 'in', ['open', 'locked'])
    .executeTakeFirstOrThrow()
  return Number(count)
}

/**
 * Whether a node's vault is bound to the holders at first: as long as there are too few peers to
 * guard it. The very first one must be asked for by name, because until then the holders alone can
 * open it.
 * @throws Fault enrolment.genesis_needed, enrolment.no_holders
 */
function genesisOf(
  nodes: number,
  asked: boolean,
  manifest: Pick<Manifest, 'genesis' | 'guardians' | 'holders' | 'vault'>,
): boolean {
  if (manifest.vault.unlock === 'pins') return false
  // Fewer than this could not guard it, and it would wait for them without ever being a peer itself.
  const peers = Math.max(manifest.genesis.peers, leastGuardians(rulesOf(manifest)))
  if (nodes >= peers && !asked) return false
  if (nodes === 0 && !asked) {
    throw nodeFault(
      'enrolment.genesis_needed',
      'there is no other node that could guard this one',
      {
        hint: 'enrol the first node with --genesis: its vault is bound to the holders until peers have joined',
      },
    )
  }
  if ('keys' in manifest.holders) return true
  throw nodeFault('enrolment.no_holders', 'the manifest names no holders to bind the vault to')
}

async function insertNode(
  work: Work,
  order: EnrolmentOrder,
  domain: string | null,
  card: NodeCard,
  { certificate, genesis }: { certificate: string; genesis: boolean },
): Promise<void> {
  const row = {
    node: card.node,
    name: order.name,
    address: new URL(enrolmentUrl(order.address)).hostname,
    domain,
    identity: card.identity,
    exchange: card.exchange,
    wireguard: card.wireguard,
    certificate,
    phase: 'enrolling',
    epoch: 0,
    threshold: 0,
    guardians: '[]',
    frozen: 0,
    ports: canonicalJson(card.ports),
    witnessed: 0,
    genesis: genesis ? 1 : 0,
  }
  try {
    await work.insertInto('nodes').values(row).execute()
  } catch (error) {
    // On an engine with several writers somebody may have taken the name since it was looked up.
    if (!isDuplicate(error)) throw error
    throw nodeFault('enrolment.name_taken', `there is a node named ${order.name} already`)
  }
}

/** Pushes until the node answers; a reply that was lost is asked for again with the same bytes. */
async function push(
  deps: EnrolmentDeps,
  id: string,
  carded: CardedNode,
  enrolment: Enrolment,
): Promise<EnrolmentState> {
  const { store, clock } = deps
  for (let attempt = 1; ; attempt += 1) {
    try {
      await carded.push(enrolment)
      return await store.write((work) => sent(work, clock, id, null))
    } catch (error) {
      const mayHaveArrived = isFault(error, 'link.unreachable') && error.details?.sent === true
      if (!mayHaveArrived) throw error
      // The node may have accepted: it is not given up, its report or the time limit decides.
      if (attempt === pushAttempts)
        return await store.write((work) => sent(work, clock, id, error.message))
      await clock.sleep(pushPause)
    }
  }
}

/** The node may have reported already, so this only moves a reservation. */
async function sent(
  work: Work,
  clock: Clock,
  id: string,
  message: string | null,
): Promise<EnrolmentState> {
  await work
    .updateTable('enrolments')
    .set({ state: 'sent', message, expires: clock.now() + enrolmentPatience })
    .where('id', '=', id)
    .where('state', '=', 'reserved')
    .execute()
  const { state } = await work
    .selectFrom('enrolments')
    .select('state')
    .where('id', '=', id)
    .executeTakeFirstOrThrow()
  return state as EnrolmentState // only enrolments*.ts write the column
}

async function privateKey(
  deps: EnrolmentDeps,
  name: 'authority-key' | 'command-key',
): Promise<KeyObject> {
  using pem = await deps.secret(name)
  return createPrivateKey(pem.reveal())
}
