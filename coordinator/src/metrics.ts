import { coordinatorStates, reasonCodes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { Counter, Gauge, Registry } from 'prom-client'
import { newestEntry } from './audit.ts'
import { holderMargin, holderStates } from './holders.ts'
import { addressOf, type ServerDeps } from './mount.ts'
import { NodeCounter } from './node-counts.ts'
import { reshareGauges } from './reshare-metrics.ts'

/** `GET /metrics` in the Prometheus format. Nothing in it is secret, and it also answers while sealed. */
export function mountMetrics(app: OpenAPIHono, deps: ServerDeps): void {
  const registry = new Registry()
  stateGauges(deps, registry)
  storeGauges(deps, registry)
  reshareGauges(deps, registry)
  const requests = new Counter({
    name: 'holdfast_coordinator_requests_total',
    help: 'Requests answered, by status class.',
    labelNames: ['status'],
    registers: [registry],
  })
  // Before all routes: what is mounted earlier would be answered without being counted.
  app.use(async (context, next) => {
    await next()
    requests.inc({ status: `${Math.floor(context.res.status / 100)}xx` })
  })
  const render = unhurried(() => registry.metrics())
  app.get('/metrics', async (context) => {
    deps.limits.take(addressOf(context))
    deps.limits.takeOpen(addressOf(context))
    return context.text(await render(), 200, { 'content-type': registry.contentType })
  })
}

/**
 * Whoever asks while it is being made gets the same, and so does who asks soon after: in a large fleet
 * it takes long, and however many ask it must not take more than a fifth of the time.
 */
export function unhurried<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  let until = Number.POSITIVE_INFINITY
  return () => {
    if (made !== undefined && performance.now() < until) return made
    const began = performance.now()
    until = Number.POSITIVE_INFINITY
    made = make().finally(() => {
      const now = performance.now()
      until = now + 4 * (now - began)
    })
    return made
  }
}

function stateGauges({ coordinator, clock }: ServerDeps, registry: Registry): void {
  const registers = [registry]
  new Gauge({
    name: 'holdfast_coordinator_state',
    help: '1 for the state it is in.',
    labelNames: ['state'],
    registers,
    collect() {
      for (const state of coordinatorStates)
        this.set({ state }, coordinator.state === state ? 1 : 0)
    },
  })
  new Gauge({
    name: 'holdfast_coordinator_reason',
    help: '1 for the reason of its state.',
    labelNames: ['reason'],
    registers,
    collect() {
      for (const reason of reasonCodes) this.set({ reason }, coordinator.reason === reason ? 1 : 0)
    },
  })
  new Gauge({
    name: 'holdfast_coordinator_generation',
    help: 'Generation of the sealed state.',
    registers,
    collect() {
      this.set(coordinator.header?.generation ?? 0)
    },
  })
  new Gauge({
    name: 'holdfast_coordinator_holders',
    help: 'Holders: needed to recover, and proven within 90 days.',
    labelNames: ['count'],
    registers,
    async collect() {
      const { header, store, reason } = coordinator
      if (header?.holders === undefined || reason === 'storage_unreachable') return this.reset()
      const { threshold } = header.holders
      const states = await holderStates(store, header)
      this.set({ count: 'needed' }, threshold)
      this.set({ count: 'proven' }, holderMargin(states, threshold, clock.now()).proven)
    },
  })
}

/** What is only known while the store answers. */
function storeGauges({ coordinator, clock }: ServerDeps, registry: Registry): void {
  const registers = [registry]
  const { store } = coordinator
  const counter = new NodeCounter(store, clock)
  new Gauge({
    name: 'holdfast_coordinator_nodes',
    help: 'Nodes on record, connected to any instance, and locked.',
    labelNames: ['count'],
    registers,
    async collect() {
      if (coordinator.reason === 'storage_unreachable') return this.reset()
      for (const [count, nodes] of Object.entries(await counter.count())) this.set({ count }, nodes)
    },
  })
  new Gauge({
    name: 'holdfast_coordinator_audit_entries',
    help: 'Entries of the audit log.',
    registers,
    async collect() {
      if (coordinator.reason === 'storage_unreachable') return this.reset()
      this.set(await newestEntry(store.read))
    },
  })
}
