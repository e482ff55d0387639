import assert from 'node:assert/strict'
import { canonicalJson } from '@holdfast/base'
import { bareJwk, generateEcKey } from '@holdfast/crypto'
import { type Instruction, signBody } from '@holdfast/link'
import type { ManifestInput } from '@holdfast/protocol'
import type { NodeReport } from '@holdfast/protocol/frames'
import { idle, order, proven, TestNode, type World, way, world } from './agents-fixture.ts'
import { enrolNode } from './enrolment-driver.ts'
import { Reshares } from './reshares.ts'
import type { StoreLocation } from './store.ts'

// Nodes that guard each other as the agent does, without disks: what a guardian has is a map, what a
// ward has is the set that it last proved. Keys and signatures are real.

type Frame<Kind extends Instruction['kind']> = Extract<Instruction, { kind: Kind }>
type Key = Record<string, unknown>

export class Member extends TestNode {
  readonly fleet: Map<string, Member>
  cluster = ''
  /** As a guardian: by ward and epoch. */
  readonly keys = new Map<string, Map<number, Key>>()
  readonly retired = new Map<string, number>()
  /** As a ward. */
  set: { id: string; epoch: number; threshold: number; guardians: string[] } | undefined
  /** Every order as it came, by epoch: a repetition must be the same. */
  readonly orders = new Map<number, string>()
  /** Says nothing to errands while it is set. */
  deaf = false
  /** Leaves only when it has no wards any more; otherwise it was forced. */
  handsOver = true
  /** Answers orders like this instead of carrying them out. */
  refusal: { code: string; message: string } | undefined

  constructor(fleet: Map<string, Member>) {
    super()
    this.fleet = fleet
    fleet.set(this.id, this)
    this.onInstruction = (frame) => this.#act(frame)
  }

  standing(phase: NodeReport['phase'] = 'open'): NodeReport {
    const { epoch = 0, threshold = 0, guardians = [] } = this.set ?? {}
    return { ...proven, phase, epoch, threshold, guardians, ways: [way] }
  }

  async #act(frame: Instruction): Promise<void> {
    if (this.deaf) return
    if (frame.kind === 'ward') this.#ward(frame)
    if (frame.kind === 'reshare') this.#move(frame)
    if (frame.kind === 'command' && frame.command === 'leave') this.#leave(frame.id)
  }

  /** As the agent's `wards`: an epoch that is over is never made again. */
  #ward({ action, ward, epoch, id }: Frame<'ward'>): void {
    const own = this.keys.get(ward) ?? new Map<number, Key>()
    this.keys.set(ward, own)
    if (action === 'retire') {
      for (const each of [...own.keys()]) if (each <= epoch) own.delete(each)
      this.retired.set(ward, Math.max(epoch, this.retired.get(ward) ?? 0))
      this.tell({ kind: 'result', command: id, ok: true })
      return
    }
    if (epoch <= (this.retired.get(ward) ?? 0)) {
      this.tell({ kind: 'result', command: id, ok: false, code: 'agent.ward_stale' })
      return
    }
    const key = own.get(epoch) ?? { ...bareJwk(generateEcKey('P-256')) }
    own.set(epoch, key)
    const body = { cluster: this.cluster, guardian: this.id, ward, epoch, key: { ...key } }
    const signature = signBody(this.identity, 'ward-key', body as Parameters<typeof signBody>[2]) // a JWK is JSON
    this.tell({ kind: 'ward-key', ward, epoch, key, signature })
    this.tell({ kind: 'result', command: id, ok: true })
  }

  #move({ id, epoch, threshold, guardians }: Frame<'reshare'>): void {
    const text = canonicalJson(guardians)
    assert.equal(this.orders.get(epoch) ?? text, text, 'the same epoch is the same order')
    this.orders.set(epoch, text)
    if (this.refusal !== undefined) {
      this.tell({ kind: 'result', command: id, ok: false, ...this.refusal })
      return
    }
    if (epoch > (this.set?.epoch ?? 0)) {
      const set = { id, epoch, threshold, guardians: guardians.map(({ node }) => node) }
      assert.ok(this.live(set) >= threshold, 'a set is ordered only when its keys are there')
      this.set = set
    }
    this.report = this.standing()
    this.tell({ kind: 'report', report: this.report })
    this.tell({ kind: 'result', command: id, ok: true })
  }

  #leave(id: string): void {
    const wards = [...this.keys.values()].filter((epochs) => epochs.size > 0).length
    if (wards > 0 && this.handsOver) {
      this.tell({ kind: 'result', command: id, ok: false, code: 'agent.wards_remain' })
      return
    }
    this.tell({ kind: 'result', command: id, ok: true, data: { what: 'left' } })
    this.report = this.standing('left')
    this.tell({ kind: 'report', report: this.report })
  }

  tell(frame: Parameters<NonNullable<TestNode['session']>['deliver']>[0]): void {
    this.session?.deliver(frame).catch(() => undefined)
  }

  /** Guardians of a set that have its key. */
  live(set = this.set): number {
    if (set === undefined) return 0
    return set.guardians.filter((id) => this.fleet.get(id)?.keys.get(this.id)?.has(set.epoch))
      .length
  }

  /** Connects again after its session was ended. */
  async again(...urls: string[]): Promise<void> {
    await this.session?.[Symbol.asyncDispose]()
    this.state = undefined
    await this.connect(...urls)
  }
}

const guardianRules: Partial<ManifestInput> = {
  guardians: { count: 3, threshold: 2, margin: 1, lostMinutes: 30, refreshDays: 30 },
  genesis: { peers: 3 },
}

/** A coordinator with its re-share duty, and a fleet to come. */
export async function fleetWorld(
  over: Partial<ManifestInput> = {},
  { atOnce, store, began }: { atOnce?: number; store?: StoreLocation; began?: number } = {},
) {
  const here = await world({ ...guardianRules, ...over }, store, began)
  const members = new Map<string, Member>()
  const { coordinator, first, clock } = here
  const limit = atOnce === undefined ? {} : { atOnce }
  const reshares = new Reshares({ coordinator, agents: first.agents, clock, ...limit })
  const stack = new AsyncDisposableStack()
  stack.use(here)
  return {
    ...here,
    members,
    reshares,
    enrol: async (name: string, domain?: string) =>
      stack.use(await enrolMember(here, members, name, domain)),
    /** Minutes go by, in which everybody who is connected is heard. */
    pass: async (minutes: number) => {
      clock.move(minutes * 60_000)
      const frame = { kind: 'heartbeat', sequence: 1 } as const
      for (const { session } of members.values())
        await session?.deliver(frame).catch(() => undefined)
      await first.agents.writeHeard()
    },
    /** Rounds until it holds; every one of them leaves everybody openable. */
    until: async (holds: () => boolean | Promise<boolean>, what: string) => {
      for (let round = 0; round < 6000; round += 1) {
        await reshares.round()
        await first.agents.look()
        requireOpenable(members)
        if (await holds()) return
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      throw new Error(`never happened: ${what}`)
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

export type FleetWorld = Awaited<ReturnType<typeof fleetWorld>>

async function enrolMember(
  here: World,
  members: Map<string, Member>,
  name: string,
  domain?: string,
): Promise<Member> {
  const node = new Member(members)
  await node.openPort()
  const { token } = await here.invite(1, domain)
  await enrolNode(here.deps, order(node, token, name, members.size === 1), 'user:ada')
  const { enrolment } = node
  assert.ok(enrolment)
  node.cluster = enrolment.cluster
  await node.connect()
  // Without peers it formats at once, otherwise after its first order.
  if (enrolment.genesis) await node.say(node.standing())
  else await node.say(idle)
  return node
}

/** Everybody who is guarded has enough guardians with the keys of the set in use. */
export function requireOpenable(members: ReadonlyMap<string, Member>): void {
  for (const member of members.values())
    if (member.set !== undefined && member.report.phase === 'open')
      assert.ok(member.live() >= member.set.threshold, `${member.id} still opens`)
}
