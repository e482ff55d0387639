import { createPrivateKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock } from '@holdfast/base'
import { connectSession, pinnedTls, type SessionState } from '@holdfast/link'
import type { AgentFrame } from '@holdfast/protocol/frames'
import type { FleetAgent } from './agents-fleet.ts'
import type { AgentsOrder } from './agents-plan.ts'
import { LoadAgent } from './load-agent.ts'
import { ReshareBehaviour } from './reshare-behaviour.ts'
import { type Figures, median, quantile } from './statistics.ts'

// Thousands of agents in one process: each has its own key, certificate and TLS connection, and the
// very session client that agents use, with its reconnection and its heartbeats. What is left out is
// what an agent does on its own machine: it has no vault, no boot state and no guardian, believes
// documents without checking their signatures, and carries no command out.

type Order<K extends AgentsOrder['do']> = Extract<AgentsOrder, { do: K }>

export class AgentsLoad {
  readonly agents: LoadAgent[] = []
  readonly #behaviour: ReshareBehaviour
  readonly #stop = new AbortController()
  /** When each document of a name has come, since it was expected. */
  readonly #documents = new Map<string, number[]>()
  #expected = 0
  #stranded: LoadAgent[] = []
  #lost = new Set<string>()
  #lostAt = 0
  #open = 0
  #failures = 0
  #onOpen: () => void = () => undefined
  /** When each session was opened, since the last order that counts them. */
  #opened: number[] = []

  /** `cluster` is what guardians sign their keys for. */
  constructor(cluster: string) {
    this.#behaviour = new ReshareBehaviour(cluster)
  }

  async obey(order: AgentsOrder): Promise<Figures> {
    switch (order.do) {
      case 'connect':
        return await this.#connect(order)
      case 'await-all':
        return await this.#awaitAll(order)
      case 'beat':
        return await this.#beat(order)
      case 'saturate':
        return await this.#saturate(order)
      case 'expect-document':
        this.#expected = performance.now()
        this.#documents.set(order.name, [])
        return {}
      case 'await-document':
        return await this.#awaitDocument(order)
      case 'lose':
        return await this.#lose(order)
      case 'await-reshared':
        return await this.#awaitReshared(order)
      case 'stop':
        this.#stop.abort()
        return {}
      default:
        return order satisfies never
    }
  }

  async #connect(order: Order<'connect'>): Promise<Figures> {
    // Written by the bench itself.
    const facts = JSON.parse(await readFile(order.agentsFile, 'utf8')) as FleetAgent[]
    const start = performance.now()
    const cpu = process.cpuUsage()
    const queue = facts.values()
    const times: number[] = []
    const worker = async () => {
      for (const each of queue) {
        const began = performance.now()
        await this.#begin(new LoadAgent(each), order)
        times.push(performance.now() - began)
      }
    }
    await Promise.all(Array.from({ length: order.inFlight ?? facts.length }, worker))
    const seconds = (performance.now() - start) / 1000
    const { user, system } = process.cpuUsage(cpu)
    return {
      seconds,
      perSecond: facts.length / seconds,
      p50: median(times),
      p99: quantile(times, 0.99),
      failures: this.#failures,
      clientCpuMs: (user + system) / 1000 / facts.length,
    }
  }

  /** Begins a session and waits until it is welcomed for the first time. */
  async #begin(agent: LoadAgent, { url, identity }: Order<'connect'>): Promise<void> {
    const { node, key, certificate } = agent.facts
    const first = Promise.withResolvers<void>()
    this.agents.push(agent)
    agent.session = connectSession({
      urls: [url],
      tls: pinnedTls(identity, { own: { key: createPrivateKey(key), certificate } }),
      hello: () => ({ kind: 'hello', node, protocol: 1, report: agent.report, ...agent.witnessed }),
      onFrame: (frame) => {
        if (frame.kind === 'document') this.#note(frame.name)
        this.#behaviour.act(agent, frame)
      },
      onState: (state) => {
        this.#enter(agent, state)
        if (state.kind === 'open') first.resolve()
      },
      clock: systemClock,
      signal: this.#stop.signal,
    })
    await first.promise
  }

  #enter(agent: LoadAgent, state: SessionState): void {
    if (state.kind === 'waiting') this.#failures += 1
    if (state.kind === 'open') {
      agent.welcomed(state.welcome)
      this.#open += 1
      this.#opened.push(performance.now())
      this.#onOpen()
    } else if (agent.isOpen) this.#open -= 1
    agent.isOpen = state.kind === 'open'
  }

  async #awaitAll({ seconds }: Order<'await-all'>): Promise<Figures> {
    const start = performance.now()
    const cpu = process.cpuUsage()
    const failures = this.#failures
    this.#opened = []
    const all = Promise.withResolvers<void>()
    this.#onOpen = () => {
      if (this.#open === this.agents.length) all.resolve()
    }
    const late = sleep(seconds * 1000).then(() => undefined)
    await Promise.race([all.promise, late])
    this.#onOpen = () => undefined
    const { user, system } = process.cpuUsage(cpu)
    const times = this.#opened.map((at) => (at - start) / 1000)
    return {
      seconds: (performance.now() - start) / 1000,
      open: this.#open,
      p50: median(times),
      p90: quantile(times, 0.9),
      p99: quantile(times, 0.99),
      failures: this.#failures - failures,
      clientCpuMs: (user + system) / 1000,
    }
  }

  async #beat({ perSecond, seconds }: Order<'beat'>): Promise<Figures> {
    const start = performance.now()
    const cpu = process.cpuUsage()
    let sent = 0
    let refused = 0
    for (let due = 0; due < perSecond * seconds; ) {
      due = Math.min(perSecond * seconds, ((performance.now() - start) / 1000) * perSecond)
      for (; sent < due; sent += 1) {
        const agent = this.agents[sent % this.agents.length]
        const frame = { kind: 'heartbeat', sequence: sent } as const
        agent?.session?.send(frame).catch(() => {
          refused += 1
        })
      }
      await sleep(5)
    }
    const { user, system } = process.cpuUsage(cpu)
    const elapsed = (performance.now() - start) / 1000
    return { perSecond: sent / elapsed, refused, clientCpuMicros: (user + system) / sent }
  }

  async #saturate({ frame, inFlight, seconds }: Order<'saturate'>): Promise<Figures> {
    const start = performance.now()
    const cpu = process.cpuUsage()
    const until = start + seconds * 1000
    const times: number[] = []
    let turn = 0
    let refused = 0
    const worker = async () => {
      while (performance.now() < until) {
        const agent = this.agents[turn++ % this.agents.length]
        if (agent?.session === undefined) break
        const began = performance.now()
        try {
          await agent.session.deliver(frameOf(frame, agent, turn))
          times.push(performance.now() - began)
        } catch {
          refused += 1
        }
      }
    }
    await Promise.all(Array.from({ length: inFlight }, worker))
    const elapsed = (performance.now() - start) / 1000
    const { user, system } = process.cpuUsage(cpu)
    return {
      perSecond: times.length / elapsed,
      open: this.#open,
      p50: median(times),
      p99: quantile(times, 0.99),
      refused,
      clientCpuMicros: (user + system) / times.length,
    }
  }

  /** Machines that are gone from one moment to the next, and the wards that they guarded. */
  async #lose({ every }: Order<'lose'>): Promise<Figures> {
    const lost = this.agents.filter((_, index) => index % every === 0)
    const left = this.agents.filter((_, index) => index % every !== 0)
    this.agents.splice(0, this.agents.length, ...left)
    const names = new Set(lost.map(({ facts }) => facts.node))
    this.#open -= lost.filter(({ isOpen }) => isOpen).length
    for (const each of lost) {
      each.isOpen = false
      await each.session?.[Symbol.asyncDispose]()
    }
    this.#stranded = this.agents.filter(({ report }) =>
      report.guardians.some((guardian) => names.has(guardian)),
    )
    this.#lost = names
    this.#lostAt = performance.now()
    return { lost: lost.length, stranded: this.#stranded.length }
  }

  /** Until no ward has a lost guardian any more. */
  async #awaitReshared({ seconds }: Order<'await-reshared'>): Promise<Figures> {
    const start = performance.now()
    const left = () =>
      this.#stranded.filter(({ report }) =>
        report.guardians.some((guardian) => this.#lost.has(guardian)),
      ).length
    while (left() > 0 && performance.now() - start < seconds * 1000) await sleep(20)
    const times = this.#stranded.flatMap(({ facts }) => {
      const at = this.#behaviour.proven.get(facts.node)
      return at === undefined ? [] : [(at - this.#lostAt) / 1000]
    })
    return {
      moved: times.length,
      left: left(),
      first: Math.min(...times),
      p50: median(times),
      p99: quantile(times, 0.99),
      last: Math.max(...times),
    }
  }

  #note(name: string): void {
    const times = this.#documents.get(name) ?? []
    times.push(performance.now())
    this.#documents.set(name, times)
  }

  /** Until every agent has the document that was expected. */
  async #awaitDocument({ name, seconds }: Order<'await-document'>): Promise<Figures> {
    const start = performance.now()
    const arrived = () => this.#documents.get(name) ?? []
    while (arrived().length < this.agents.length && performance.now() - start < seconds * 1000)
      await sleep(5)
    const times = arrived().map((at) => at - this.#expected)
    return {
      arrived: times.length,
      p50: median(times),
      p99: quantile(times, 0.99),
      last: Math.max(0, ...times.slice(-1)),
    }
  }
}

function frameOf(
  kind: 'heartbeat' | 'report',
  { report }: LoadAgent,
  sequence: number,
): AgentFrame {
  if (kind === 'heartbeat') return { kind, sequence }
  return { kind, report: { ...report, uptimeSeconds: sequence } }
}
