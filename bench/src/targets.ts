import type { BenchResult } from './result.ts'

/** What a result is held to. */
export interface Target {
  readonly result: string
  /** The program compared with; without it the figure is ours alone. */
  readonly peer?: string
  /** Name among the ratios, or, without a peer, among our figures. */
  readonly figure: string
  /** Of a ratio, or of a figure of our own. */
  readonly atLeast?: number
  readonly atMost?: number
  /** Below this it is not merely missed but a failure. */
  readonly failsBelow?: number
  readonly says: string
}

const exec = 'tangd-exec'
const fork = 'tangd-fork'

/** The targets set before anything was measured. */
export const targets: readonly Target[] = [
  {
    result: 'keyserver/p521/new-connection',
    peer: exec,
    figure: 'requestsPerSecond',
    atLeast: 10,
    failsBelow: 5,
    says: 'P-521, new connection: requests per second beside tangd executed per connection',
  },
  {
    result: 'keyserver/p521/new-connection',
    peer: fork,
    figure: 'requestsPerSecond',
    atLeast: 4,
    says: 'P-521, new connection: requests per second beside tangd in fork mode',
  },
  {
    result: 'keyserver/p521/new-connection',
    peer: exec,
    figure: 'p99',
    atLeast: 4,
    says: "P-521, new connection: p99 under a quarter of tangd's",
  },
  {
    result: 'keyserver/p256/new-connection',
    peer: exec,
    figure: 'requestsPerSecond',
    atLeast: 10,
    says: 'P-256, new connection: requests per second beside tangd executed per connection',
  },
  {
    result: 'keyserver/p256/new-connection',
    peer: fork,
    figure: 'requestsPerSecond',
    atLeast: 3,
    says: 'P-256, new connection: requests per second beside tangd in fork mode',
  },
  ...['p521', 'p256'].flatMap((curve) =>
    ['keep-alive', 'keep-alive-quick-ack'].map((mode) => ({
      result: `keyserver/${curve}/${mode}`,
      peer: exec,
      figure: 'requestsPerSecond',
      atLeast: 1,
      says: `${curve === 'p521' ? 'P-521' : 'P-256'}, ${mode}: ahead of tangd`,
    })),
  ),
  {
    result: 'open/tang1',
    peer: 'clevis-decrypt',
    figure: 'wall',
    atLeast: 1.5,
    says: 'one tang pin, command against command: `holdfast open` beside `clevis decrypt`',
  },
  {
    result: 'open/sss2of3',
    peer: 'clevis-decrypt',
    figure: 'wall',
    atLeast: 3,
    says: '2-of-3 tang pins, command against command',
  },
  {
    result: 'open/tang1/in-process',
    peer: 'clevis-decrypt',
    figure: 'wall',
    atLeast: 10,
    says: 'one tang pin, `open` in a running process beside `clevis decrypt`',
  },
  {
    result: 'open/sss2of3/in-process',
    peer: 'clevis-decrypt',
    figure: 'wall',
    atLeast: 10,
    says: '2-of-3 tang pins, `open` in a running process beside `clevis decrypt`',
  },
  {
    result: 'startup/version',
    figure: 'wallMs',
    atMost: 100,
    says: '`holdfast --version`, warm, milliseconds',
  },
  {
    result: 'agents/10000',
    figure: 'heldAgents',
    atLeast: 10_000,
    says: 'agents held by one coordinator, each with its own TLS connection',
  },
  {
    result: 'up/six-nodes',
    figure: 'readySeconds',
    atMost: 60,
    says: '`holdfast up` with six nodes ready, seconds',
  },
]

export type Verdict = 'met' | 'not met' | 'failed' | 'not measured'

/** A target with what was measured. */
export interface Judged extends Target {
  readonly value: number | undefined
  readonly verdict: Verdict
}

/** Holds results against their targets; targets of results that were not run are left out. */
export function judge(results: readonly BenchResult[], held = targets): Judged[] {
  return held.flatMap((target) => {
    const result = results.find(({ name }) => name === target.result)
    if (result === undefined) return []
    const value = measuredIn(result, target)
    return [{ ...target, value, verdict: verdictOf(target, value) }]
  })
}

function measuredIn(result: BenchResult, { peer, figure }: Target): number | undefined {
  if (peer === undefined) return result.ours[figure]
  const value = result.ratios[peer]?.[figure]
  return typeof value === 'number' ? value : undefined
}

function verdictOf(target: Target, value: number | undefined): Verdict {
  if (value === undefined || Number.isNaN(value)) return 'not measured'
  if (target.atLeast !== undefined && value >= target.atLeast) return 'met'
  if (target.atMost !== undefined && value <= target.atMost) return 'met'
  return target.failsBelow !== undefined && value < target.failsBelow ? 'failed' : 'not met'
}
