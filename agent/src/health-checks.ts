import { connect } from 'node:net'
import { type Clock, messageOf, run, runningTimeout } from '@holdfast/base'
import type { NodeReport } from '@holdfast/protocol/frames'
import { type HealthCheck, healthCheckSchema } from '@holdfast/protocol/manifest'
import { createFetch } from '@holdfast/seal'
import { agentFault } from './faults.ts'
import { unitName } from './service-unit.ts'
import type { Systemd } from './systemd.ts'

// The manifest's health checks, run again and again while the vault is open. A check has
// `withinSeconds` from the opening of the vault to pass for the first time and is `waiting` until
// then; afterwards it is `passing` or `failing`. A required one that begins to fail is an incident.

export type HealthState = NonNullable<NodeReport['health']>[string]

export interface Health {
  state: HealthState
  detail?: string
}

export interface HealthDeps {
  systemd: Systemd | undefined
  definitions: () => Readonly<Record<string, unknown>>
  onChange: () => void
  onIncident: (code: string, text: string) => void
  clock: Clock
}

/** Milliseconds that one attempt may take, as `afterRunning` counts them. */
const attempt = 10_000

export class HealthChecks {
  readonly #deps: HealthDeps
  #found = new Map<string, Health>()
  /** When the vault was opened; undefined while it is closed. */
  #since: number | undefined

  constructor(deps: HealthDeps) {
    this.#deps = deps
  }

  get found(): ReadonlyMap<string, Health> {
    return this.#found
  }

  /** The vault has been opened, or closed. */
  opened(open: boolean): void {
    this.#since = open ? (this.#since ?? this.#deps.clock.now()) : undefined
    if (!open) this.#found = new Map()
  }

  /** Runs every check once, side by side. */
  async look(signal: AbortSignal): Promise<void> {
    const since = this.#since
    if (since === undefined) return
    const { definitions, onChange, onIncident, clock } = this.#deps
    const looked = Object.entries(definitions()).map(async ([name, given]) => {
      const parsed = healthCheckSchema.safeParse(given)
      if (!parsed.success)
        return { name, required: false, health: refused('this agent does not understand it') }
      const result = await this.#try(parsed.data, signal)
      const elapsed = clock.now() - since
      return {
        name,
        required: parsed.data.required,
        health: judgeHealth(parsed.data, result, elapsed),
      }
    })
    const now = await Promise.all(looked)
    if (signal.aborted || this.#since !== since) return
    const before = this.#found
    this.#found = new Map(now.map(({ name, health }) => [name, health]))
    for (const { name, required, health } of now) {
      if (!required || health.state !== 'failing' || before.get(name)?.state === 'failing') continue
      onIncident('health.failing', `${name}: ${health.detail ?? 'it fails'}`)
    }
    const changed = now.some(({ name, health }) => before.get(name)?.state !== health.state)
    if (changed || before.size !== now.length) onChange()
  }

  /** What is wrong; undefined when nothing is. */
  async #try(check: HealthCheck, signal: AbortSignal): Promise<Result> {
    const slow = new Error(`no end within ${attempt / 1000} s`)
    using late = runningTimeout(attempt, slow)
    try {
      return await this.#once(check, AbortSignal.any([signal, late.signal]))
    } catch (error) {
      return { ok: false, text: messageOf(error) }
    }
  }

  async #once({ kind, target }: HealthCheck, signal: AbortSignal): Promise<Result> {
    switch (kind) {
      case 'unit':
        return await unitRuns(this.#deps.systemd, target)
      case 'http':
        return await answers(target, signal)
      case 'tcp':
        await connects(target, signal)
        return { ok: true, text: '' }
      case 'command':
        return await succeeds(this.#deps.systemd, target, signal)
      default:
        return kind satisfies never
    }
  }
}

interface Result {
  /** Undefined when this machine cannot run the check. */
  ok: boolean | undefined
  text: string
}

/** What a check is after an attempt, so many milliseconds after the vault was opened. Pure. */
export function judgeHealth(
  { withinSeconds }: Pick<HealthCheck, 'withinSeconds'>,
  { ok, text }: Result,
  elapsed: number,
): Health {
  if (ok === undefined) return refused(text)
  if (ok) return { state: 'passing' }
  const state = elapsed < withinSeconds * 1000 ? 'waiting' : 'failing'
  return { state, detail: text.slice(0, 500) }
}

const refused = (detail: string): Health => ({ state: 'refused', detail })
const noSystemd: Result = { ok: undefined, text: 'systemd does not run on this machine' }

/** `target` names a service of the manifest or, with its ending, any unit. */
async function unitRuns(systemd: Systemd | undefined, target: string): Promise<Result> {
  if (systemd === undefined) return noSystemd
  const unit = /\.[a-z]+$/.test(target) ? target : unitName(target)
  const found = (await systemd.show([unit])).get(unit)
  const state = found?.ActiveState ?? 'not known'
  return { ok: state === 'active', text: `${unit} is ${state}` }
}

async function answers(target: string, signal: AbortSignal): Promise<Result> {
  const { status } = await createFetch({ body: 1024 * 1024 })(target, { method: 'GET', signal })
  return { ok: status >= 200 && status < 400, text: `${target} answers ${status}` }
}

/** `host:port`; an IPv6 address stands in brackets. */
async function connects(target: string, signal: AbortSignal): Promise<void> {
  const [, host = '', port = ''] = /^\[?([^\]]+?)\]?:(\d+)$/.exec(target) ?? []
  if (port === '') throw agentFault('agent.request_malformed', `"${target}" is not host:port`)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = connect({ host, port: Number(port) })
  socket.once('connect', resolve)
  socket.once('error', reject)
  const late = () => reject(new Error(`${target} does not answer in time`))
  signal.addEventListener('abort', late, { once: true })
  try {
    await promise
  } finally {
    signal.removeEventListener('abort', late)
    socket.destroy()
  }
}

/** What a check's program gets of the machine: a user of its own, and nothing to write. */
const sandbox = ['DynamicUser=yes', 'ProtectSystem=strict', 'ProtectHome=yes', 'PrivateDevices=yes']

/**
 * Words of a program; no shell reads them, and it does not run as root. As a one-shot unit its end is
 * the end of the start, which systemd tells root without a message bus; `--wait` needs one.
 */
async function succeeds(
  systemd: Systemd | undefined,
  target: string,
  signal: AbortSignal,
): Promise<Result> {
  if (systemd === undefined) return noSystemd
  const properties = [...sandbox, `TimeoutStartSec=${attempt / 1000}`, 'NoNewPrivileges=yes']
  const args = ['--quiet', '--collect', '--service-type=oneshot']
  args.push(...properties.map((property) => `--property=${property}`), '--')
  args.push(...target.trim().split(/\s+/))
  const { code, stderr } = await run('systemd-run', args, { accept: [0, 1], signal })
  return { ok: code === 0, text: `${target}: ${stderr.trim().slice(0, 300)}` }
}
