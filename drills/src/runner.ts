import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, isFault, messageOf, systemClock } from '@holdfast/base'
import type { Drill, DrillContext, DrillResult } from './drill.ts'
import { drillsFault } from './faults.ts'
import { Timeline } from './timeline.ts'

const defaultTimeout = 120_000
const defaultGrace = 10_000

/**
 * Runs one drill to its end and cleans up after it: every process it started is gone and its
 * directory removed, whatever happened. Never throws for a drill that fails: the result says so.
 */
export async function perform(drill: Drill, context: DrillContext): Promise<DrillResult> {
  const { command, coordinator, agent, timeout = defaultTimeout, grace = defaultGrace } = context
  const began = systemClock.now()
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(lateBy(drill, timeout)), timeout)
  const signal =
    context.signal === undefined
      ? deadline.signal
      : AbortSignal.any([context.signal, deadline.signal])
  const timeline = new Timeline(systemClock, signal, context.onEvent)
  await ensureDirectory(context.directory)
  const directory = await mkdtemp(join(context.directory, `${drill.name}-`))
  let failure: unknown
  try {
    await using cleanup = new AsyncDisposableStack()
    cleanup.defer(() => rm(directory, { recursive: true, force: true }))
    const stage = { directory, command, coordinator, agent, timeline, signal, cleanup }
    await noLonger(drill.run(stage), signal, grace)
  } catch (error) {
    failure = signal.aborted ? reasonOf(drill, deadline.signal) : error
  } finally {
    clearTimeout(timer)
  }
  const seconds = (systemClock.now() - began) / 1000
  const { evidence } = timeline
  const result = { name: drill.name, passed: failure === undefined, seconds, evidence }
  return failure === undefined ? result : { ...result, problem: problemOf(failure) }
}

/**
 * Waits for the drill. Once the signal is aborted it gets `grace` milliseconds to end by itself, so
 * that nothing it is just starting is left over; a drill that hangs does not hold the caller up.
 */
async function noLonger(work: Promise<void>, signal: AbortSignal, grace: number): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  let timer: NodeJS.Timeout | undefined
  const aborted = () => {
    timer = setTimeout(() => reject(signal.reason), grace)
  }
  signal.addEventListener('abort', aborted, { once: true })
  if (signal.aborted) aborted()
  try {
    await Promise.race([work, late])
    signal.throwIfAborted()
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', aborted)
  }
}

function reasonOf(drill: Drill, deadline: AbortSignal): unknown {
  if (deadline.aborted) return deadline.reason
  return drillsFault('drills.interrupted', `${drill.name} was stopped before its end`)
}

function lateBy(drill: Drill, timeout: number): Error {
  return drillsFault('drills.timed_out', `${drill.name} did not end within ${timeout} ms`)
}

function problemOf(error: unknown): { code: string; message: string } {
  return { code: isFault(error) ? error.code : 'internal', message: messageOf(error) }
}

/** Finds a drill. @throws Fault drills.unknown */
export function drillNamed(drills: readonly Drill[], name: string): Drill {
  const found = drills.find((drill) => drill.name === name)
  if (found !== undefined) return found
  throw drillsFault('drills.unknown', `there is no drill named "${name.slice(0, 40)}"`, {
    hint: 'see them all: holdfast drill list',
  })
}
