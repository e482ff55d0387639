import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RunningProgram } from '@holdfast/base'
import type { AgentLab } from './agent-lab.ts'

// The test bench of the agent's crash tests: an enrolled node's own process, killed after its n-th effect
// while it carries something out, then started again and let finish. Each kill takes seconds, so that
// these tests leave effects out unless HOLDFAST_CRASH_STEP says otherwise (CONTRIBUTING.md).

/** No order has this many effects; a loop that gets here has not ended. */
const mostEffects = 400

/** Something that a node is told to do, once or again. */
export interface Order {
  id: string
  give(lab: AgentLab): Promise<unknown>
  /** When it may be given; as soon as there is a session otherwise. */
  isReady?: (lab: AgentLab) => boolean
  /** When it is over; with its result otherwise. */
  isOver?: (lab: AgentLab) => boolean
}

export interface Kills {
  orderOf: () => Order
  /** What must be so after a kill and a second attempt. */
  check: (order: Order) => Promise<void>
  /** Prepares the enrolled node, once. */
  prepare?: () => Promise<void>
  /** Looks at the node's directory before each attempt. */
  before?: () => Promise<void>
}

/** An order of the coordinator's, by its command. */
export function commanded(
  command: Parameters<AgentLab['command']>[0],
  given: Record<string, unknown> = {},
): Order {
  const id = newId()
  return { id, give: (lab) => lab.command(command, given, id) }
}

export const newId = (): string => randomBytes(16).toString('base64url')

/** Open, with nothing left to do. */
export function atRest({ events }: AgentLab): boolean {
  const last = events.findLast((event) => event.kind === 'phase')
  return last?.kind === 'phase' && last.phase === 'open' && last.task === undefined
}

/** Forgets what was heard of the node, but not the results that it gave. */
export function forget(lab: AgentLab): void {
  lab.events.length = 0
  lab.reports.length = 0
}

/** The ways into the vault, as an open node reports them. */
export async function reportedWays(lab: AgentLab): Promise<string[]> {
  const report = await lab.until('a report', () =>
    lab.reports.findLast(({ phase }) => phase === 'open'),
  )
  return report.ways.map(({ purpose, label }) => `${purpose} ${label}`.trim()).sort()
}

/** Kills the node's process at one effect after the other, from the same start each time. */
export async function everyKill(
  lab: AgentLab,
  { orderOf, check, prepare, before = async () => undefined }: Kills,
): Promise<void> {
  await using made = await template(lab, prepare)
  const step = crashStep(11)
  const killed: number[] = []
  for (let killAt = crashFrom(); ; killAt += step) {
    assert.ok(killAt < mostEffects, 'an order has fewer effects than that')
    await made.restore()
    await before()
    const order = orderOf()
    try {
      if (!(await withKill(lab, killAt, order))) break
      killed.push(killAt)
      await check(order)
    } catch (cause) {
      throw new Error(`killed at effect ${killAt}`, { cause })
    }
  }
  assert.ok((killed.at(-1) ?? 0) + step > 20, `killed at ${killed.join(', ')}`)
}

/** How many effects from one kill to the next. */
export function crashStep(usual: number): number {
  return Number(process.env.HOLDFAST_CRASH_STEP ?? usual)
}

/** The first effect that is killed at. */
export function crashFrom(): number {
  return Number(process.env.HOLDFAST_CRASH_FROM ?? 1)
}

/** An enrolled node at rest, to be put back for every kill. */
async function template(lab: AgentLab, prepare: Kills['prepare']) {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-template-'))
  const first = await lab.startProcess(0)
  assert.ok(first !== undefined)
  await lab.until('an open port', () => lab.events.find(({ kind }) => kind === 'enrolment_port'))
  await lab.enrol(true)
  await lab.until('rest', () => (atRest(lab) ? true : undefined))
  await prepare?.()
  await first[Symbol.asyncDispose]()
  const places = [lab.options.directory, lab.options.runtimeDirectory, lab.device]
  const copyOf = (index: number) => join(path, `${index}`)
  for (const [index, place] of places.entries()) await cp(place, copyOf(index), { recursive: true })
  const restore = async () => {
    for (const [index, place] of places.entries()) {
      await rm(place, { recursive: true, force: true })
      await cp(copyOf(index), place, { recursive: true })
    }
    forget(lab)
    lab.frames.length = 0
  }
  return { restore, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** Gives the order and waits until it is over; false when the process ended before that. */
async function carriedOut(lab: AgentLab, running: RunningProgram, what: Order): Promise<boolean> {
  let ended = false
  void running.ended.then(() => {
    ended = true
  })
  const answer = () =>
    lab.frames.find((frame) => frame.kind === 'result' && frame.command === what.id)
  const isOver = () => what.isOver?.(lab) ?? answer() !== undefined
  const settled = () => (isOver() || ended ? true : undefined)
  const ready = () => lab.reports.length > 0 && what.isReady?.(lab) !== false
  await lab.until('a session', () => (ready() ? true : settled()))
  if (settled() === undefined) void what.give(lab).catch(() => undefined) // killed on the way
  await lab.until('an end', settled)
  const result = answer()
  if (result?.kind === 'result') assert.equal(result.ok, true, result.message)
  return isOver()
}

/** Orders once with a kill, then without; gives whether the kill came. */
async function withKill(lab: AgentLab, killAt: number, what: Order): Promise<boolean> {
  const first = await lab.startProcess(killAt)
  const whole = first !== undefined && (await carriedOut(lab, first, what))
  await first?.[Symbol.asyncDispose]()
  if (whole) return false
  forget(lab)
  const second = await lab.startProcess(0)
  assert.ok(second !== undefined)
  assert.equal(await carriedOut(lab, second, what), true)
  await second[Symbol.asyncDispose]()
  return true
}
