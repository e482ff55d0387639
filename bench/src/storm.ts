import { setTimeout as sleep } from 'node:timers/promises'
import { createPins, open } from '@holdfast/seal'
import { exchangeOnce } from './client.ts'
import { settled } from './load.ts'
import type { Target } from './load-plan.ts'
import { processorTime } from './process-cpu.ts'
import { type Figures, median, quantile } from './statistics.ts'
import type { StormPlan, StormReport, StormWork } from './storm-plan.ts'

const pauseBetween = 500

/** Lets the storm loose on every target once per round, in turn. */
export async function runStorm(plan: StormPlan): Promise<StormReport> {
  const report = Object.fromEntries(plan.targets.map(({ name }) => [name, [] as Figures[]]))
  for (let round = 0; round < plan.rounds; round += 1) {
    for (const target of plan.targets) {
      const work = plan.work[target.name]
      if (work === undefined) continue
      report[target.name]?.push(await once(target, work))
      await sleep(pauseBetween)
    }
  }
  return report
}

async function once(target: Target, work: StormWork): Promise<Figures> {
  const before = processorTime(target.pid)
  const start = performance.now()
  const times =
    work.kind === 'requests'
      ? await allAtOnce(target.port, work.requests)
      : await openAll(work.sealed, work.inFlight, work.plaintext)
  const seconds = (performance.now() - start) / 1000
  await settled(target.pid, before.processes)
  const done = times.filter((time) => time !== undefined)
  return {
    seconds,
    failures: times.length - done.length,
    p50: median(done),
    p99: quantile(done, 0.99),
    cpuMs: (processorTime(target.pid).micros - before.micros) / 1000,
  }
}

/** Milliseconds of each client, undefined for one that failed. */
type Times = (number | undefined)[]

function allAtOnce(port: number, requests: readonly string[]): Promise<Times> {
  const start = performance.now()
  const client = (request: string): Promise<number | undefined> =>
    new Promise((resolve) => {
      exchangeOnce(port, Buffer.from(request, 'latin1'), (status) =>
        resolve(status === 200 ? performance.now() - start : undefined),
      )
    })
  return Promise.all(requests.map(client))
}

async function openAll(
  sealed: readonly string[],
  inFlight: number,
  plaintext: string,
): Promise<Times> {
  const pins = createPins()
  const times: Times = []
  const queue = sealed.values()
  const client = async () => {
    for (const text of queue) {
      const start = performance.now()
      try {
        using secret = await open(pins, text)
        const right = Buffer.from(secret.reveal()).toString('utf8') === plaintext
        times.push(right ? performance.now() - start : undefined)
      } catch {
        times.push(undefined) // counted as a failure
      }
    }
  }
  await Promise.all(Array.from({ length: inFlight }, client))
  return times
}
