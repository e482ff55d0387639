import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, systemClock } from '@holdfast/base'
import {
  type AgentSession,
  certificateRequest,
  connectSession,
  type EnrolmentPort,
  type Instruction,
  keyId,
  openEnrolmentPort,
  openListener,
  pinnedTls,
  type SessionState,
  serverTls,
  type Witness,
} from '@holdfast/link'
import type { ManifestInput } from '@holdfast/protocol'
import type { Enrolment, NodeReport } from '@holdfast/protocol/frames'
import { createPins } from '@holdfast/seal'
import { Agents } from './agents.ts'
import { Coordinator } from './coordinator.ts'
import { enrolmentDeps } from './enrolment-deps.ts'
import { enrolNode } from './enrolment-driver.ts'
import { filePin } from './file-pin.ts'
import { createInvite } from './invites.ts'
import { proposeManifest } from './manifests.ts'
import type { StoreLocation } from './store.ts'

// A real coordinator, real TLS, real sealed channel and sessions; the node's disk is the only thing
// that is not there.

const holder = generateKeyPairSync('rsa', { modulusLength: 3072 }).publicKey
const manifest = {
  version: 1,
  cluster: 'fleet',
  holders: {
    threshold: 1,
    keys: { alice: holder.export({ type: 'spki', format: 'pem' }).toString() },
  },
}

export const p256 = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const pem = (key: KeyObject) =>
  createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()

/** Real sleeping, and a time that stands still until it is moved. */
function movableClock(began: number): Clock & { move(milliseconds: number): void } {
  let now = began
  return {
    now: () => now,
    sleep: systemClock.sleep,
    move: (milliseconds) => {
      now += milliseconds
    },
  }
}

export interface Instance extends AsyncDisposable {
  url: string
  agents: Agents
  /** Ends all connections without a word, as a killed process does. */
  cut(): void
}

export async function instanceOf(
  coordinator: Coordinator,
  clock: Clock,
  instance: string,
): Promise<Instance> {
  const server = createServer(serverTls(coordinator.identity, coordinator.header?.authority))
  const agents = await Agents.start({ coordinator, server, clock, instance })
  const listener = await openListener(server, { port: 0, host: '127.0.0.1' })
  const cut = () => void listener[Symbol.asyncDispose]()
  return {
    url: `https://127.0.0.1:${listener.port}`,
    agents,
    cut,
    [Symbol.asyncDispose]: async () => {
      await agents[Symbol.asyncDispose]()
      cut()
    },
  }
}

/** @param began where its clock stands at first, in milliseconds since 1970 */
export async function world(
  over: Partial<ManifestInput> = {},
  store?: StoreLocation,
  began = 1_800_000_000_000,
) {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-agents-'))
  const clock = movableClock(began)
  const coordinator = await Coordinator.start({
    directory,
    store: store ?? { engine: 'sqlite', path: join(directory, 'state.db') },
    pins: createPins({ extra: [filePin()] }),
    clock,
  })
  const token = await readFile(join(directory, 'claim-token'), 'utf8')
  await coordinator.claim(token, 'fleet', async () => undefined)
  const { store: opened } = coordinator
  const cluster = () => coordinator.header?.cluster ?? ''
  await proposeManifest(
    coordinator,
    { store: opened, clock, cluster },
    { ...manifest, ...over },
    'user:ada',
  )
  assert.equal(coordinator.state, 'running')
  const first = await instanceOf(coordinator, clock, 'one')
  const deps = enrolmentDeps(coordinator, clock, [first.url])
  return {
    directory,
    coordinator,
    store: opened,
    clock,
    deps,
    first,
    invite: (uses = 1, domain?: string) =>
      opened.write((work) =>
        createInvite(work, clock, { label: '', minutes: 60, uses, domain }, 'user:ada'),
      ),
    [Symbol.asyncDispose]: async () => {
      await first[Symbol.asyncDispose]()
      await coordinator[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}

export type World = Awaited<ReturnType<typeof world>>

/**
 * Where a world begins with which processes go on by the system's clock: a day ahead of them, so that
 * nothing in it ends before they have come to theirs, however long that takes and whatever the date is.
 */
export const tomorrow = (): number => systemClock.now() + 24 * 60 * 60_000

export const idle: NodeReport = {
  phase: 'enrolling',
  generation: 1,
  epoch: 0,
  threshold: 0,
  guardians: [],
  wards: 0,
  ways: [],
  mapped: false,
  network: 'mutual-tls',
  services: {},
  incidents: [],
  lastErrors: [],
  uptimeSeconds: 1,
}
export const way = { keyslot: 1, purpose: 'automatic', label: 'holders', state: 'proven' } as const
export const proven: NodeReport = { ...idle, phase: 'open', ways: [way] }

/** A node without a disk: its port, its keys, its session. */
export class TestNode implements AsyncDisposable {
  readonly identity = p256()
  readonly id = keyId(this.identity)
  readonly got: Instruction[] = []
  code = ''
  wireguard = ''
  enrolment: Enrolment | undefined
  refuse: Error | undefined
  report: NodeReport = idle
  witnessed: Witness | undefined
  session: AgentSession | undefined
  state: SessionState | undefined
  onInstruction: (frame: Instruction) => Promise<void> = async () => undefined
  #port: EnrolmentPort | undefined
  #waiting: ((state: SessionState) => void)[] = []

  async openPort(header: 'none' | 'known' | 'foreign' = 'none'): Promise<this> {
    await this.#port?.[Symbol.asyncDispose]()
    this.#port = await openEnrolmentPort({
      host: '127.0.0.1',
      port: 0,
      identity: this.identity,
      card: {
        node: this.id,
        identity: pem(this.identity),
        exchange: pem(p256()),
        wireguard: this.wireguard,
        certificateRequest: await certificateRequest(this.identity),
        ports: { peer: 9_998, wireguard: 51_820 },
        device: { path: '/dev/sda', bytes: 1_000_000_000, header },
      },
      onCode: (code) => {
        this.code = code
      },
      onEnrolment: async (enrolment) => {
        if (this.refuse !== undefined) throw this.refuse
        this.enrolment = enrolment
      },
    })
    return this
  }

  get address(): string {
    return `127.0.0.1:${this.#port?.port}`
  }

  async connect(...urls: string[]): Promise<this> {
    const { enrolment } = this
    assert.ok(enrolment)
    this.session = connectSession({
      urls: urls.length > 0 ? urls : enrolment.coordinators,
      tls: pinnedTls(enrolment.coordinatorIdentity, {
        own: { key: this.identity, certificate: enrolment.certificate },
      }),
      hello: () => ({
        kind: 'hello',
        node: this.id,
        protocol: 1,
        report: this.report,
        ...(this.witnessed === undefined ? {} : { witnessed: this.witnessed }),
      }),
      onFrame: async (frame) => {
        this.got.push(frame)
        await this.onInstruction(frame)
      },
      onState: (state) => {
        this.state = state
        for (const waiting of this.#waiting.splice(0)) waiting(state)
      },
      clock: systemClock,
      random: () => 0,
      signal: new AbortController().signal,
      backoff: { base: 20, most: 100 },
    })
    await this.until(({ kind }) => kind !== 'connecting')
    return this
  }

  async until(wanted: (state: SessionState) => boolean): Promise<SessionState> {
    for (let changes = 0; changes < 6000; changes += 1) {
      if (this.state !== undefined && wanted(this.state)) return this.state
      await new Promise<SessionState>((resolve) => this.#waiting.push(resolve))
    }
    throw new Error('the session never came into the state that was waited for')
  }

  /** Reports and waits until the coordinator has taken the report in. */
  async say(report: NodeReport): Promise<void> {
    this.report = report
    await this.session?.deliver({ kind: 'report', report })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session?.[Symbol.asyncDispose]()
    await this.#port?.[Symbol.asyncDispose]()
  }
}

/** The same disk in another machine. */
export class CopyOf extends TestNode {
  override readonly identity: KeyObject
  override readonly id: string
  constructor(original: TestNode) {
    super()
    this.identity = original.identity
    this.id = original.id
    this.enrolment = original.enrolment
    this.report = original.report
  }
}

export const order = (node: TestNode, invite: string, name: string, genesis = true) => ({
  invite,
  address: node.address,
  code: node.code,
  name,
  genesis,
})

/** A node that is in, connected and proven. */
export async function enrolled(here: World, name: string, ...urls: string[]): Promise<TestNode> {
  const node = await new TestNode().openPort()
  const { token } = await here.invite()
  await enrolNode(here.deps, order(node, token, name), 'user:ada')
  await node.connect(...urls)
  await node.say(proven)
  return node
}

export const liveness = ({ clock, first }: World) => ({
  now: clock.now(),
  silence: first.agents.silence,
})

export async function until(check: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (let attempt = 0; attempt < 6000; attempt += 1) {
    if (await check()) return
    await systemClock.sleep(10)
  }
  throw new Error(`never happened: ${what}`)
}
