import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  freePort,
  isFault,
  type RunningProgram,
  run,
  type Secret,
  startProgram,
  systemClock,
} from '@holdfast/base'
import { compactJwe, encryptJwe, type FlattenedJwe } from '@holdfast/crypto'
import type { CommandFrame } from '@holdfast/link'
import {
  acceptSessions,
  alwaysValid,
  type CoordinatorSession,
  type Errand,
  exchange,
  fetchCard,
  keyId,
  parseCode,
  pinnedTls,
  type Report,
  selfSigned,
  serverTls,
  signBody,
  signCommand,
  signDocument,
  signErrand,
  signGeneration,
} from '@holdfast/link'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import type { Enrolment, NodeCard, NodeReport } from '@holdfast/protocol/frames'
import { createPins, open, type Pins } from '@holdfast/seal'
import { startAgent } from './agent.ts'
import type { Agent, AgentEvent, AgentOptions } from './agent-options.ts'
import { publicPem } from './identity.ts'
import { wardKeyBody } from './membership.ts'
import { type PeerFleet, peerFleet, type TestGuardian } from './peer-fleet.ts'

// The test bench of the whole agent: a real disk image, real guardians, and the least coordinator that
// speaks the real protocol over real TLS and WebSockets.

export interface AgentLab extends AsyncDisposable {
  fleet: PeerFleet
  coordinator: Awaited<ReturnType<typeof testCoordinator>>
  device: string
  options: AgentOptions
  events: AgentEvent[]
  /** The newest report, and everything else that came. */
  reports: NodeReport[]
  frames: Report[]
  start(): Promise<Agent>
  /**
   * Starts the agent as a process of its own, killed after `killAt` effects; undefined when it did not
   * live until it was ready.
   */
  startProcess(killAt: number, more?: readonly string[]): Promise<RunningProgram | undefined>
  /** Enrols the node that shows the newest code. */
  enrol(genesis: boolean): Promise<void>
  /** Orders a set of guardians; gives the order's id. */
  reshare(guardians: readonly TestGuardian[], epoch: number): Promise<string>
  /** The card of the node that was enrolled. */
  card(): NodeCard
  /** Publishes services and health checks, as the manifest has them. */
  policy(given: Pick<PolicyDocument, 'services' | 'healthChecks'>): Promise<void>
  /** With an id of one that was sent before, it is sent once more. */
  command(
    command: CommandFrame['command'],
    given?: Record<string, unknown>,
    id?: string,
  ): Promise<string>
  resultOf(id: string): Promise<Extract<Report, { kind: 'result' }>>
  /** Waits, bounded, until something is so. */
  until<T>(what: string, look: () => T | undefined): Promise<T>
  /** What two holders get out of the recovery keyslot. */
  recoveryPassphrase(): Promise<Secret>
  sealFor(exchange: string, passphrase: Secret): Promise<string>
  /** Asks the peer port of the node as a stranger who knows its id. */
  peer(node: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }>
  /** Pins with which two of the three holders are present. */
  holderPins(): Pins
}

const p256 = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const newId = () => randomBytes(16).toString('base64url')
const cluster = 'c'.repeat(22)
/** Milliseconds for one request to a node, which may be slow. */
const patience = 60_000

export async function agentLab(): Promise<AgentLab> {
  const stack = new AsyncDisposableStack()
  const fleet = stack.use(await peerFleet())
  const scratch = async (below: string) => {
    const path = await mkdtemp(join(below, 'holdfast-agent-'))
    stack.defer(() => rm(path, { recursive: true, force: true }))
    return path
  }
  const device = join(await scratch(tmpdir()), 'disk.img')
  await writeFile(device, '')
  await truncate(device, 32 * 1024 * 1024)
  const events: AgentEvent[] = []
  const options: AgentOptions = {
    directory: join(await scratch(tmpdir()), 'node'),
    runtimeDirectory: await scratch('/dev/shm'),
    device,
    host: '127.0.0.1',
    // Nobody else takes them when they are closed.
    enrolmentPort: await freePort(),
    peerPort: await freePort(),
    wireguardPort: 51_820,
    onEvent: (event) => events.push(event),
    backoff: { base: 50, most: 200 },
  }
  const coordinator = await testCoordinator(fleet)
  stack.defer(coordinator.stop)
  const holders = { alice: p256(), bob: p256(), carol: p256() }
  const stop = new AbortController()
  stack.defer(() => stop.abort())
  const last = <Kind extends AgentEvent['kind']>(kind: Kind) =>
    events.findLast((event): event is Extract<AgentEvent, { kind: Kind }> => event.kind === kind)
  let shown: NodeCard | undefined
  const card = () => {
    if (shown === undefined) throw new Error('no card has been fetched')
    return shown
  }
  const enrol = async (genesis: boolean) => {
    const port = await until('an open port', () => last('enrolment_port')?.port)
    const code = await until('a code', () => last('code')?.code)
    using secret = parseCode(code)
    const carded = await fetchCard(`127.0.0.1:${port}`, secret, { timeout: patience })
    shown = carded.card
    const keys = Object.entries(holders).map(([name, key]) => [name, publicPem(key)])
    await carded.push({
      ...coordinator.enrolment,
      certificate: await fleet.certify(carded.card.certificateRequest),
      genesis,
      holders: { threshold: 2, keys: Object.fromEntries(keys) },
    })
  }
  const { frames, reports } = coordinator
  return {
    ...{ fleet, coordinator, device, options, events, reports, frames },
    start: async () => stack.use(await startAgent(options, stop.signal)),
    startProcess: async (killAt, more = []) => {
      const running = await startProcess(options, killAt, more, (event) => events.push(event))
      if (running !== undefined) stack.use(running)
      return running
    },
    enrol,
    reshare: (guardians, epoch) => coordinator.reshare(card(), guardians, epoch),
    card,
    policy: (given) => coordinator.policy(given),
    command: (command, given = {}, id) => coordinator.command(command, given, id),
    resultOf: (id) =>
      until(`the result of ${id}`, () =>
        frames.find((frame) => frame.kind === 'result' && frame.command === id),
      ) as Promise<Extract<Report, { kind: 'result' }>>, // by the condition
    until,
    recoveryPassphrase: () => recoveryOf(device, holders),
    sealFor: async (key, passphrase) =>
      await encryptJwe({ alg: 'ECDH-ES' }, createPublicKey(key), passphrase),
    peer: async (node, path, body) => {
      const tls = pinnedTls(node)
      try {
        const url = `https://127.0.0.1:${options.peerPort}${path}`
        const given = body === undefined ? {} : { body: JSON.stringify(body) }
        const method = body === undefined ? 'GET' : 'POST'
        const reply = await exchange(url, { method, tls, timeout: patience, ...given })
        return { status: reply.status, body: JSON.parse(reply.body) }
      } finally {
        tls.destroy()
      }
    },
    holderPins: () => pinsOf(holders),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function startProcess(
  options: AgentOptions,
  killAt: number,
  more: readonly string[],
  onEvent: (event: AgentEvent) => void,
): Promise<RunningProgram | undefined> {
  const file = (name: string) => new URL(name, import.meta.url).pathname
  const args = ['--import', file('kill-at-effect.ts'), file('main.ts')]
  args.push('--directory', options.directory, '--runtime', options.runtimeDirectory)
  args.push('--device', options.device, '--host', '127.0.0.1')
  args.push('--enrolment-port', '0', '--peer-port', `${options.peerPort}`, ...more)
  args.push('--tunnel', 'off', '--tpm', 'off')
  try {
    const { running } = await startProgram(process.execPath, args, () => true, {
      environment: { HOLDFAST_KILL_AT: `${killAt}` },
      readyWithin: 120_000,
      grace: 60_000,
      onLine: (line) => {
        if (line.startsWith('{')) onEvent(JSON.parse(line) as AgentEvent) // main.ts writes them
      },
    })
    return running
  } catch (error) {
    if (killAt > 0 && isFault(error, 'base.program_failed')) return undefined
    throw error
  }
}

export async function until<T>(what: string, look: () => T | undefined): Promise<T> {
  const deadline = performance.now() + 240_000
  while (performance.now() < deadline) {
    const found = look()
    if (found !== undefined) return found
    await systemClock.sleep(20)
  }
  throw new Error(`${what} did not come in time`)
}

/** The least coordinator that speaks the real protocol; several nodes may be in session with it. */
export async function testCoordinator(fleet: PeerFleet, host = '127.0.0.1') {
  const [identity, commandKey] = [p256(), p256()]
  const own = { key: identity, certificate: await selfSigned(identity, 'c', alwaysValid) }
  const server = createServer(serverTls(own, fleet.authority))
  const frames: Report[] = []
  const reports: NodeReport[] = []
  const sessions = new Map<string, CoordinatorSession>()
  let version = 0
  let issued = 0
  const { proof } = signGeneration(identity, cluster, 3)
  const acceptor = acceptSessions({
    server,
    clock: systemClock,
    heartbeatSeconds: 30,
    admit: async () => ({
      kind: 'welcome',
      cluster,
      generation: 3,
      proof,
      state: 'running',
      time: 0,
      heartbeatSeconds: 30,
    }),
    onOpen: (opened, hello) => {
      sessions.delete(opened.node)
      sessions.set(opened.node, opened)
      reports.push(hello.report)
    },
    onFrame: (_, frame) => {
      frames.push(frame)
      if (frame.kind === 'report') reports.push(frame.report)
    },
    onClose: (closed) => {
      if (sessions.get(closed.node) === closed) sessions.delete(closed.node)
    },
    onTwin: () => undefined,
  })
  server.listen(0, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  const current = (node?: string) =>
    until('a session', () =>
      node === undefined ? [...sessions.values()].at(-1) : sessions.get(node),
    )
  const enrolment: Omit<Enrolment, 'certificate' | 'genesis'> = {
    cluster,
    name: 'web-1',
    authority: fleet.authority,
    coordinators: [`https://${host}:${port}`],
    coordinatorIdentity: keyId(identity),
    commandKey: publicPem(commandKey),
    address: '10.88.0.2/16',
  }
  return {
    enrolment,
    frames,
    reports,
    session: current,
    sign: (document: Parameters<typeof signDocument>[1]) => signDocument(commandKey, document),
    signErrand: (node: string, errand: Errand) => signErrand(commandKey, { cluster, node }, errand),
    reshare: async (ward: NodeCard, guardians: readonly TestGuardian[], epoch: number) => {
      const to = await current()
      const order = await reshareOf(ward, guardians, epoch)
      await to.deliver(signErrand(commandKey, { cluster, node: to.node }, order))
      return order.id
    },
    policy: async (given: Pick<PolicyDocument, 'services' | 'healthChecks'>) => {
      const to = await current()
      version += 1
      const rest = { cluster, manifest: 'm'.repeat(43), guardians: {}, vault: {} }
      const body = JSON.stringify({ ...rest, ...given, twoPersonRule: false })
      await to.deliver(signDocument(commandKey, { name: 'policy', version, body }))
    },
    command: async (
      command: CommandFrame['command'],
      given: Record<string, unknown>,
      id = newId(),
    ) => {
      const to = await current()
      issued += 1
      const frame = { id, command, arguments: given, by: 'test', issue: issued }
      await to.deliver(signCommand(commandKey, { cluster, node: to.node }, frame))
      return id
    },
    stop: async () => {
      await acceptor[Symbol.asyncDispose]()
      server.closeAllConnections()
      server.close()
    },
  }
}

async function reshareOf(ward: NodeCard, guardians: readonly TestGuardian[], epoch: number) {
  const signed = guardians.map((guardian) => signedGuardian(guardian, ward, epoch))
  const threshold = Math.floor(guardians.length / 2) + 1
  const all = await Promise.all(signed)
  return { kind: 'reshare', id: newId(), epoch, threshold, guardians: all } as const
}

async function signedGuardian(
  { identity, keys, url }: TestGuardian,
  ward: NodeCard,
  epoch: number,
) {
  const key = { ...(await keys.prepare(ward.node, ward.identity, epoch)) }
  const body = wardKeyBody(cluster, identity.node, ward.node, epoch, key)
  return {
    node: identity.node,
    addresses: [url],
    identity: publicPem(identity.identity),
    key,
    signature: signBody(identity.identity, 'ward-key', body),
  }
}

async function recoveryOf(device: string, holders: Record<string, KeyObject>): Promise<Secret> {
  const args = ['token', 'export', '--token-id', '0', device]
  const { stdout } = await run('cryptsetup', args)
  const token = JSON.parse(stdout.toString('utf8')) as { jwe: FlattenedJwe } // Holdfast wrote it
  return await open(pinsOf(holders), compactJwe(token.jwe))
}

/** Two of the holders are here. */
function pinsOf(holders: Record<string, KeyObject>): Pins {
  const present = new Map(Object.entries(holders).slice(0, 2))
  return createPins({
    holders: {
      answer: async ({ name }) => {
        const privateKey = present.get(name)
        return privateKey === undefined ? undefined : { privateKey }
      },
    },
  })
}
