import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '@holdfast/base'
import type { EcPublicJwk } from '@holdfast/crypto'
import {
  alwaysValid,
  certificateRequest,
  issue,
  keyId,
  type OwnCertificate,
  selfSigned,
} from '@holdfast/link'
import { type Policy, parsePolicy } from '@holdfast/seal'
import { Guardian, type GuardianDeps } from './guardian.ts'
import { type GuardianServer, openGuardianServer } from './guardian-server.ts'
import { publicPem } from './identity.ts'
import type { WardIdentity } from './peer-client.ts'
import { ReleaseLog } from './release-log.ts'
import type { ReleasePolicy } from './release-rules.ts'
import { WardKeys } from './ward-keys.ts'

// The test bench of the guardians: a fleet's authority, nodes with real certificates, and guardians
// that answer on real TLS sockets. All clocks say 1970.

export interface PeerFleet extends AsyncDisposable {
  path: string
  authority: string
  /** A certificate for a request, PEM. */
  certify(request: string): Promise<string>
  node(): Promise<WardIdentity>
  guardian(options?: { policy?: Partial<ReleasePolicy> }): Promise<TestGuardian>
}

export interface TestGuardian {
  identity: WardIdentity
  directory: string
  keys: WardKeys
  url: string
  /** The same guardian for callers who count as being in the tunnel. */
  tunnelUrl: string
  incidents: { code: string; text: string }[]
  /** What went wrong inside and was not told to the asker. */
  errors: unknown[]
  frozen: Map<string, string>
  /** Milliseconds; tests move it. */
  time: { now: number }
  start(): Promise<void>
  stop(): Promise<void>
}

export async function peerFleet(): Promise<PeerFleet> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-peers-'))
  const key = p256()
  const authority = await selfSigned(key, 'fleet', alwaysValid, { authority: true })
  const guardians: TestGuardian[] = []
  const certify = async (request: string) =>
    (await issue(request, { key, certificate: authority }, alwaysValid, [])).certificate
  const node = async (): Promise<WardIdentity> => {
    const identity = p256()
    const certificate = await certify(await certificateRequest(identity))
    const own: OwnCertificate = { key: identity, certificate }
    return { node: keyId(identity), identity, own, authority }
  }
  return {
    path,
    authority,
    certify,
    node,
    guardian: async ({ policy = {} } = {}) => {
      const directory = join(path, `guardian-${guardians.length}`)
      const made = await testGuardian(await node(), directory, policy)
      guardians.push(made)
      await made.start()
      return made
    },
    [Symbol.asyncDispose]: async () => {
      for (const guardian of guardians) await guardian.stop()
      await rm(path, { recursive: true, force: true })
    },
  }
}

async function testGuardian(
  identity: WardIdentity,
  directory: string,
  policy: Partial<ReleasePolicy>,
): Promise<TestGuardian> {
  let server: GuardianServer | undefined
  let tunnel: GuardianServer | undefined
  const port = await freePort() // the same after a stop
  const guardian: TestGuardian = {
    identity,
    directory,
    keys: new WardKeys(directory),
    url: '',
    tunnelUrl: '',
    incidents: [],
    errors: [],
    frozen: new Map(),
    time: { now: 0 },
    start: async () => {
      await guardian.keys.finishRetiring()
      const { log, entries } = await ReleaseLog.open(join(directory, 'releases.log'), () => 0)
      const deps: GuardianDeps = {
        node: identity.node,
        keys: guardian.keys,
        log,
        history: entries,
        policy: () => ({ holdMinutes: 0, releasesPerHour: 60, sources: [], ...policy }),
        frozen: (ward) => guardian.frozen.get(ward),
        onIncident: (code, text) => guardian.incidents.push({ code, text }),
        monotonic: () => guardian.time.now,
      }
      const { own, authority } = identity
      const answering = new Guardian(deps)
      const options = {
        guardian: () => answering,
        ...{ own, authority, host: '127.0.0.1', port },
        onError: (error: unknown) => void guardian.errors.push(error),
      }
      server = await openGuardianServer(options)
      tunnel = await openGuardianServer({ ...options, port: 0, inside: () => true })
      guardian.tunnelUrl = `https://127.0.0.1:${tunnel.port}`
      guardian.url = `https://127.0.0.1:${port}`
    },
    stop: async () => {
      await server?.[Symbol.asyncDispose]()
      await tunnel?.[Symbol.asyncDispose]()
      server = undefined
      tunnel = undefined
    },
  }
  await guardian.keys.open()
  return guardian
}

/** What a coordinator does: lets every guardian make its key, and gives the ward's policy. */
export async function peerPolicy(
  ward: WardIdentity,
  guardians: readonly TestGuardian[],
  { threshold, epoch = 1 }: { threshold: number; epoch?: number },
): Promise<Policy> {
  const peers = await Promise.all(
    guardians.map(async (guardian) => {
      const identity = publicPem(ward.identity)
      const key = await guardian.keys.prepare(ward.node, identity, epoch)
      return peerConfig(ward, guardian, epoch, key)
    }),
  )
  return parsePolicy('sss', { t: threshold, pins: { peer: peers } })
}

export function peerConfig(
  ward: WardIdentity,
  { identity, url }: TestGuardian,
  epoch: number,
  key: EcPublicJwk,
) {
  return {
    guardian: identity.node,
    addresses: [url],
    identity: publicPem(identity.identity),
    ward: ward.node,
    epoch,
    adv: { keys: [{ ...key }] },
  }
}

function p256(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}
