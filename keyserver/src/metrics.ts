import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Health } from './engine.ts'
import type { Gauges } from './events.ts'
import type { RecoveryEvent } from './listener.ts'

// Prometheus metrics, kept where all events of all processes come together, so that a worker that is
// killed takes no counts with it. Labels are bounded: a thumbprint that names no key is `unknown`.

/** What is measured besides recoveries, at the moment of asking. */
export interface MetricsSource {
  gauges(): Gauges
  readonly workers: number
  readonly restarts: number
  readonly auditDropped: number
  health(): Pick<Health, 'advertised' | 'hidden' | 'prefixes' | 'status'>
}

const prefixLength = 8
const kidLimit = 2_000

export class Metrics {
  readonly #registry = new Registry()
  readonly #recoveries: Counter
  readonly #seconds: Histogram
  readonly #kids = new Set<string>()

  constructor(source: MetricsSource) {
    const registers = [this.#registry]
    this.#recoveries = new Counter({
      name: 'holdfast_keyserver_recoveries_total',
      help: 'Recoveries answered, by the first characters of the key thumbprint, prefix and status',
      labelNames: ['kid', 'prefix', 'curve', 'status'],
      registers,
    })
    this.#seconds = new Histogram({
      name: 'holdfast_keyserver_recovery_seconds',
      help: 'Time from a complete request to its reply, waiting included',
      labelNames: ['curve'],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
      registers,
    })
    this.#addGauges(source)
  }

  /** Counts recoveries. */
  add(events: readonly RecoveryEvent[]): void {
    for (const event of events) {
      this.#recoveries.inc({
        kid: this.#label(event),
        prefix: event.known ? event.prefix : '',
        curve: event.crv,
        status: event.status,
      })
      this.#seconds.observe({ curve: event.crv }, event.microseconds / 1e6)
    }
  }

  /** The text exposition format, version 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics()
  }

  #label({ known, kid }: RecoveryEvent): string {
    if (!known) return 'unknown'
    if (this.#kids.size >= kidLimit && !this.#kids.has(kid)) return 'other'
    this.#kids.add(kid)
    return kid.slice(0, prefixLength)
  }

  #addGauges(source: MetricsSource): void {
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name: `holdfast_keyserver_${name}`,
        help,
        registers: [this.#registry],
        collect() {
          this.set(value())
        },
      })
    const counter = (name: string, help: string, value: () => number) =>
      new Counter({
        name: `holdfast_keyserver_${name}_total`,
        help,
        registers: [this.#registry],
        collect() {
          this.reset()
          this.inc(value())
        },
      })
    gauge('connections', 'Open connections', () => source.gauges().connections)
    counter('accepted', 'Connections accepted', () => source.gauges().accepted)
    counter('refused', 'Connections refused, too many were open', () => source.gauges().refused)
    counter('limited', 'Requests over the rate of their address', () => source.gauges().limited)
    counter(
      'overloaded',
      'Recoveries refused, full queue or hold',
      () => source.gauges().overloaded,
    )
    gauge('workers', 'Server processes running', () => source.workers)
    counter('worker_restarts', 'Server processes replaced', () => source.restarts)
    counter('audit_dropped', 'Audit lines lost to a slow reader', () => source.auditDropped)
    gauge('keys_advertised', 'Advertised keys', () => source.health().advertised)
    gauge('keys_hidden', 'Hidden keys that still answer', () => source.health().hidden)
    gauge('prefixes', 'Prefixes', () => source.health().prefixes)
    gauge('healthy', '1 when nothing is wrong', () => (source.health().status === 'ok' ? 1 : 0))
  }
}
