import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Agent } from 'node:https'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { chooseGuardians, type NodeView } from '@holdfast/coordinator/decisions'
import { exchange, pinnedTls } from '@holdfast/link'
import { type FleetAgent, type FleetShape, type SeededFleet, seedFleet } from './agents-fleet.ts'
import {
  AgentsProcess,
  type CoordinatorProcess,
  residentMemory,
  startCoordinator,
} from './agents-processes.ts'
import type { BenchContext } from './bench.ts'
import { processorTime } from './process-cpu.ts'
import { type BenchResult, compare } from './result.ts'
import { type Figures, median } from './statistics.ts'

// Agents held by one coordinator, at three sizes of the fleet: what each one costs in processor time, in
// memory and in the store. Everything is real but what agents do on their own machines.

const sizes = [100, 1000, 10_000]
/** The same for every size, so that the curve is the fleet's and not the placement's. */
const shape = { guardians: 5, threshold: 3, domains: 8 }
/** New connections at a time while the rate is measured. */
const inFlight = 100

/** `agents/N` for each size; `--agents` gives another one. */
export async function benchAgents(context: BenchContext): Promise<BenchResult[]> {
  const wanted = context.agents === undefined ? sizes : [context.agents]
  const results: BenchResult[] = []
  for (const count of wanted) {
    const name = `agents/${count}`
    if (!context.selects(name)) continue
    context.progress(name)
    results.push(await benchSize(context, name, { ...shape, count }))
  }
  return results
}

async function benchSize(
  context: BenchContext,
  name: string,
  fleetShape: FleetShape,
): Promise<BenchResult> {
  const { count } = fleetShape
  const fleet = await seedFleet(await context.folder(), fleetShape)
  const bytes = statSync(join(fleet.directory, 'state.db')).size
  await using agents = new AgentsProcess(fleet.cluster)
  let coordinator = await startCoordinator(fleet.directory)
  try {
    const held = await holdAll(context, fleet, coordinator, agents, count)
    const asked = await administer(fleet, coordinator, agents)
    const storm = await reconnect(fleet, coordinator, agents, (next) => {
      coordinator = next
    })
    const figures = {
      ...held,
      ...asked,
      ...placement(count),
      ...storm,
      storeBytesPerAgent: bytes / count,
    }
    return compare(name, [figures], {}, [], notes)
  } finally {
    await coordinator[Symbol.asyncDispose]()
  }
}

/** Connects everybody and measures what they cost while they are there. */
async function holdAll(
  context: BenchContext,
  { agentsFile, identity }: SeededFleet,
  { pid, url }: CoordinatorProcess,
  agents: AgentsProcess,
  count: number,
): Promise<Figures> {
  const cpu = () => processorTime(pid).micros
  const { seconds } = context
  await sleep(2_000) // what starting a process allocates has settled
  const before = residentMemory(pid)
  let used = cpu()
  const connected = await agents.order({ do: 'connect', agentsFile, url, identity, inFlight })
  const connectCpuMs = (cpu() - used) / 1000 / count
  await sleep(3_000) // the ledger has written down who is there
  used = cpu()
  const rested = performance.now()
  await sleep(seconds * 5_000)
  const idle = (cpu() - used) / 1000 / (performance.now() - rested)
  const memory = await settledMemory(pid)
  used = cpu()
  const perSecond = Math.max(200, count / 5)
  const beats = await agents.order({ do: 'beat', perSecond, seconds })
  const cpuMicrosPerHeartbeat =
    (cpu() - used - idle * seconds * 1e6) / ((beats.perSecond ?? perSecond) * seconds)
  const most = await agents.order({ do: 'saturate', frame: 'heartbeat', inFlight: 64, seconds })
  const reports = await agents.order({ do: 'saturate', frame: 'report', inFlight: 64, seconds })
  return {
    agents: count,
    heldAgents: reports.open ?? 0,
    connectsPerSecond: connected.perSecond ?? 0,
    connectP99Ms: connected.p99 ?? 0,
    connectCpuMs,
    connectFailures: connected.failures ?? 0,
    kilobytesPerAgent: (memory - before) / 1024 / count,
    coordinatorMegabytes: memory / 2 ** 20,
    idleCpuPercent: idle * 100,
    cpuMicrosPerHeartbeat,
    heartbeatsPerSecond: most.perSecond ?? 0,
    heartbeatP99Ms: most.p99 ?? 0,
    reportsPerSecond: reports.perSecond ?? 0,
  }
}

/** What people do with the whole fleet: look at it, and freeze a node. */
async function administer(
  { agentsFile, identity, token }: SeededFleet,
  { url }: CoordinatorProcess,
  agents: AgentsProcess,
): Promise<Figures> {
  using tls = disposable(pinnedTls(identity))
  const headers = { authorization: `Bearer ${token}` }
  const request = async (method: 'GET' | 'POST', path: string, body?: string) => {
    const began = performance.now()
    const options = { method, tls: tls.agent, headers, limit: 2 ** 28, timeout: 60_000 } as const
    const reply = await exchange(
      `${url}${path}`,
      body === undefined ? options : { ...options, body },
    )
    if (reply.status !== 200)
      throw new Error(`${path}: ${reply.status} ${reply.body.slice(0, 300)}`)
    return { milliseconds: performance.now() - began, bytes: reply.body.length }
  }
  await request('GET', '/v1/nodes')
  const lists: number[] = []
  for (let look = 0; look < 5; look += 1)
    lists.push((await request('GET', '/v1/nodes')).milliseconds)
  const [{ node = '' } = {}] = await agentsOf(agentsFile)
  await agents.order({ do: 'expect-document', name: 'freeze' })
  const freeze = await request('POST', `/v1/nodes/${node}/freezes`, '{"reason":"a measurement"}')
  const arrived = await agents.order({ do: 'await-document', name: 'freeze', seconds: 60 })
  return {
    listMs: median(lists),
    freezeMs: freeze.milliseconds,
    freezeArrived: arrived.arrived ?? 0,
    freezeLastMs: arrived.last ?? Number.NaN,
  }
}

function disposable(agent: Agent): { agent: Agent } & Disposable {
  return { agent, [Symbol.dispose]: () => agent.destroy() }
}

async function agentsOf(file: string): Promise<FleetAgent[]> {
  return JSON.parse(await readFile(file, 'utf8')) as FleetAgent[] // written by `seedFleet`
}

/** Choosing one ward's guardians among all nodes; nothing but arithmetic. */
function placement(count: number): Figures {
  const view = (index: number): NodeView => ({
    ...{ node: `node-${index}`, name: `node-${index}`, domain: `rack-${index % shape.domains}` },
    ...{ phase: 'open', frozen: false, connected: true, heardAt: 1, waiting: false },
    ...{ epoch: 1, threshold: shape.threshold, guardians: [], genesis: false },
    ...{ leaving: false, sharedWithLeaver: false, rebooting: false },
  })
  const views = Array.from({ length: count }, (_, index) => view(index))
  const times = Array.from({ length: 21 }, (_, index) => {
    const ward = views[index % count] ?? view(0)
    const began = performance.now()
    chooseGuardians(ward, views, { count: shape.guardians })
    return performance.now() - began
  })
  return { placementMs: median(times) }
}

/** Resident memory moves with the garbage collector: the median of a few looks. */
async function settledMemory(pid: number): Promise<number> {
  const looks: number[] = []
  for (let look = 0; look < 9; look += 1) {
    looks.push(residentMemory(pid))
    await sleep(300)
  }
  return median(looks)
}

/** Kills the coordinator and starts it again at once: how long until the last agent is back. */
async function reconnect(
  { directory }: SeededFleet,
  before: CoordinatorProcess,
  agents: AgentsProcess,
  started: (coordinator: CoordinatorProcess) => void,
): Promise<Figures> {
  await before.kill()
  const back = agents.order({ do: 'await-all', seconds: 150 })
  const coordinator = await startCoordinator(directory, before.port)
  started(coordinator)
  const storm = await back
  return {
    restartMs: coordinator.startedWithin,
    backWithinSeconds: storm.seconds ?? 0,
    backP50Seconds: storm.p50 ?? 0,
    backP99Seconds: storm.p99 ?? 0,
    backAgents: storm.open ?? 0,
    failedAttempts: storm.failures ?? 0,
    backCpuSeconds: processorTime(coordinator.pid).micros / 1e6,
  }
}

const notes = [
  'one coordinator process on SQLite; the agents in one other process on the same two cores: each with its own key, certificate, mutual TLS 1.3 and the real session client with heartbeats every 20 s',
  "the agents' process leaves out vault, boot state, guardian, checking of documents and commands; their records, leases and signed peers are written into the store beforehand, enrolment is not measured",
  'heldAgents: still connected after all of the load below but the restart',
  'kilobytesPerAgent: resident memory with all agents idle, less that of the coordinator before the first, divided by the agents',
  'connectsPerSecond: 100 connections begun at a time, from TCP to the welcome; connectCpuMs is the coordinator alone',
  'idleCpuPercent: of one core, with the heartbeats that the sessions send by themselves; cpuMicrosPerHeartbeat: of one more than those',
  'heartbeatsPerSecond, reportsPerSecond: 64 in flight, each acknowledged by a message of its own, the clients on the same cores',
  'listMs: GET /v1/nodes by an administrator, the whole reply; freezeMs: until the freeze of a node is acknowledged, freezeLastMs: until the last agent has the signed list',
  'placementMs: choosing the guardians of one ward among all nodes, the pure function alone',
  'back…: the coordinator is killed and started again at once; agents wait 1 to 3 s, then up to three times as long after every failure (decorrelated jitter), 60 s at most; counted from the kill to the welcome, 150 s at most',
]
