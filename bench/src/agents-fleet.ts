import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { canonicalJson, ensureDirectory, systemClock } from '@holdfast/base'
import { Coordinator, filePin, proposeManifest } from '@holdfast/coordinator'
import { keyId, signDocument } from '@holdfast/link'
import type { NodeReport } from '@holdfast/protocol/frames'
import { createPins } from '@holdfast/seal'
import { CertificatePress } from './agents-certificates.ts'

// A fleet as it stands long after its enrolment: a claimed coordinator with a manifest, and in its
// store the record, the lease and the signed list of peers of every node, each with a key and a
// certificate of its own. Written straight into the store: enrolling ten thousand machines is not
// what is measured here.

/** What the load generator has to know to be one agent. */
export interface FleetAgent {
  readonly node: string
  readonly name: string
  /** PEM, PKCS#8: made for this bench and thrown away with it. */
  readonly key: string
  /** PEM, SubjectPublicKeyInfo. */
  readonly identity: string
  readonly certificate: string
  readonly report: NodeReport
}

export interface SeededFleet {
  /** The coordinator's directory. */
  readonly directory: string
  /** JSON array of FleetAgent. */
  readonly agentsFile: string
  /** What agents pin. */
  readonly identity: string
  /** PEM of the fleet's authority. */
  readonly authority: string
  readonly cluster: string
  /** Bearer token of an administrator. */
  readonly token: string
}

export interface FleetShape {
  readonly count: number
  /** Guardians of each node: its neighbours in the order of names. */
  readonly guardians: number
  readonly threshold: number
  /** Failure domains, by turns. */
  readonly domains: number
  /** Minutes of silence after which a guardian is lost; default the manifest's own. */
  readonly lostMinutes?: number
}

const batch = 500

/** Makes a coordinator's state for `count` nodes in `folder`. */
export async function seedFleet(folder: string, shape: FleetShape): Promise<SeededFleet> {
  const directory = join(folder, 'coordinator')
  await ensureDirectory(directory)
  await using coordinator = await Coordinator.start({
    directory,
    store: { engine: 'sqlite', path: join(directory, 'state.db') },
    pins: createPins({ extra: [filePin()] }),
  })
  const token = await readFile(join(directory, 'claim-token'), 'utf8')
  const cluster = await coordinator.claim(token, 'fleet', async () => undefined)
  const deps = { store: coordinator.store, clock: systemClock, cluster: () => cluster }
  await proposeManifest(coordinator, deps, manifest(shape), 'user:bench')
  const agents = await makeAgents(coordinator, shape)
  await writeRecords(coordinator, cluster, agents, shape)
  const administrator = await writeAdministrator(coordinator)
  const agentsFile = join(folder, 'agents.json')
  await writeFile(agentsFile, JSON.stringify(agents), { mode: 0o600 })
  const authority = coordinator.header?.authority ?? ''
  return {
    directory,
    agentsFile,
    identity: coordinator.identity.digest,
    authority,
    cluster,
    token: administrator,
  }
}

/** A user with a token, as the API makes them; passwords are not needed here. */
async function writeAdministrator({ store }: Coordinator): Promise<string> {
  const token = randomBytes(32).toString('base64url')
  const hash = createHash('sha256').update(token).digest('base64url')
  const roles = JSON.stringify(['admin', 'operator'])
  await store.write(async (work) => {
    const user = { name: 'bench', password: null, roles }
    await work.insertInto('users').values(user).execute()
    const expires = Date.now() + 86_400_000
    const row = { id: 'bench', hash, user: 'bench', label: '', scopes: roles, expires }
    await work.insertInto('tokens').values(row).execute()
  })
  return token
}

function manifest({ guardians, threshold, lostMinutes }: FleetShape) {
  return {
    version: 1,
    cluster: 'fleet',
    holders: { none: 'there will be no recovery' },
    guardians: {
      ...{ count: guardians, threshold },
      ...(lostMinutes === undefined ? {} : { lostMinutes }),
    },
  }
}

async function makeAgents(coordinator: Coordinator, shape: FleetShape): Promise<FleetAgent[]> {
  const authority = {
    key: await secretKey(coordinator, 'authority-key'),
    certificate: coordinator.header?.authority ?? '',
  }
  const keys = Array.from({ length: shape.count }, p256)
  const ids = keys.map(({ privateKey }) => keyId(privateKey))
  const press = await CertificatePress.create(authority, p256().privateKey)
  const agents: FleetAgent[] = []
  for (const [index, { privateKey, publicKey }] of keys.entries()) {
    const guardians = neighbours(index, shape, 1).map((each) => ids[each] ?? '')
    agents.push({
      node: ids[index] ?? '',
      name: nameOf(index),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      identity: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      certificate: press.issue(privateKey),
      report: reportOf(guardians, shape),
    })
  }
  return agents
}

/** The nodes that come after (`direction` 1) or before this one. */
function neighbours(index: number, { count, guardians }: FleetShape, direction: 1 | -1): number[] {
  return Array.from(
    { length: Math.min(guardians, count - 1) },
    (_, step) => (((index + direction * (step + 1)) % count) + count) % count,
  )
}

const nameOf = (index: number): string => `node-${String(index).padStart(5, '0')}`

/** What an open, healthy node says of itself. */
function reportOf(guardians: readonly string[], shape: FleetShape): NodeReport {
  const way = { purpose: 'automatic', label: 'peers', state: 'proven', margin: 2 } as const
  return {
    phase: 'open',
    generation: 1,
    epoch: 1,
    threshold: shape.threshold,
    guardians: [...guardians],
    wards: guardians.length,
    ways: [
      { ...way, keyslot: 1, provenAt: 1_800_000_000_000 },
      { keyslot: 0, purpose: 'recovery', label: 'holders', state: 'proven' },
    ],
    mapped: true,
    network: 'kernel-wireguard',
    services: { web: 'running', database: 'running' },
    incidents: [],
    lastErrors: [],
    uptimeSeconds: 86_400,
  }
}

async function writeRecords(
  coordinator: Coordinator,
  cluster: string,
  agents: readonly FleetAgent[],
  shape: FleetShape,
): Promise<void> {
  const { store } = coordinator
  const signer = await secretKey(coordinator, 'command-key')
  const peers = agents.map((_, index) => peersOf(index, agents, shape))
  for (let start = 0; start < agents.length; start += batch) {
    await store.write(async (work) => {
      for (const [offset, agent] of agents.slice(start, start + batch).entries()) {
        const index = start + offset
        const { node } = agent
        await work
          .insertInto('nodes')
          .values(nodeRow(agent, index, shape))
          .execute()
        await work
          .insertInto('reshares')
          .values(provenSet(agent, start + offset))
          .execute()
        const lease = { address: tunnelAddress(index), node, until: Number.MAX_SAFE_INTEGER }
        await work.insertInto('leases').values(lease).execute()
        const body = canonicalJson({ cluster, node, peers: peers[index] ?? [] })
        const unsigned = { name: 'peers', version: index + 1, body } as const
        const { signature } = signDocument(signer, unsigned)
        await work
          .insertInto('documents')
          .values({ ...unsigned, name: `peers:${node}`, signature })
          .execute()
      }
    })
  }
}

function nodeRow(agent: FleetAgent, index: number, { domains }: FleetShape) {
  const { node, name, identity, certificate, report } = agent
  const { phase, epoch, threshold, guardians } = report
  return {
    ...{ node, name, identity, certificate, phase, epoch, threshold },
    address: '127.0.0.1',
    domain: `rack-${index % domains}`,
    exchange: identity,
    wireguard: 'A'.repeat(44),
    guardians: canonicalJson(guardians),
    frozen: 0,
    ports: canonicalJson({ peer: 9998, wireguard: 51820 }),
    report: canonicalJson(report),
    witnessed: 1,
  }
}

/** The re-share that gave the node its guardians: a set of unknown age would be made anew at once. */
function provenSet({ node, report }: FleetAgent, index: number) {
  const { epoch, threshold, guardians } = report
  const now = systemClock.now()
  return {
    ...{ id: `seeded-${index}`, ward: node, cause: 'first', state: 'done', epoch, threshold },
    ...{ guardians: canonicalJson(guardians), created: now, since: now, blamed: '[]' },
  }
}

function peersOf(index: number, agents: readonly FleetAgent[], shape: FleetShape) {
  const peer = (at: number, relation: 'guardian' | 'ward') => {
    const { node = '', name = '', identity = '' } = agents[at] ?? {}
    return {
      ...{ node, name, relation, identity },
      wireguard: 'A'.repeat(44),
      address: tunnelAddress(at),
      endpoint: '127.0.0.1:51820',
      urls: ['https://127.0.0.1:9998'],
    }
  }
  return [
    ...neighbours(index, shape, 1).map((at) => peer(at, 'guardian')),
    ...neighbours(index, shape, -1).map((at) => peer(at, 'ward')),
  ]
}

const tunnelAddress = (index: number): string => `10.88.${(index + 2) >> 8}.${(index + 2) & 255}`

async function secretKey(
  coordinator: Coordinator,
  name: 'authority-key' | 'command-key',
): Promise<KeyObject> {
  using pem = await coordinator.secret(name)
  return createPrivateKey(pem.reveal())
}

function p256() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}
