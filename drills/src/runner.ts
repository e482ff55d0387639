import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, isFault, messageOf, systemClock } from '@holdfast/base'
import type { Drill, DrillContext, DrillResult } from './drill.ts'
import { drillsFault } from './faults.ts'
import { Timeline } from './timeline.ts'

const defaultTimeout = 120_000

/**
 * Runs one drill to its end and cleans up after it: every process it started is gone and its
 * directory removed, whatever happened. Never throws for a drill that fails: the result says so.
 */
export async function perform(drill: Drill, context: DrillContext): Promise<DrillResult> {
  const { command, timeout = defaultTimeout } = context
  const began = systemClock.now()
  const timeline = new Timeline(systemClock, context.onEvent)
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(lateBy(drill, timeout)), timeout)
  const signal =
    context.signal === undefined
      ? deadline.signal
      : AbortSignal.any([context.signal, deadline.signal])
  await ensureDirectory(context.directory)
  const directory = await mkdtemp(join(context.directory, `${drill.name}-`))
  let failure: unknown
  try {
    await using cleanup = new AsyncDisposableStack()
    cleanup.defer(() => rm(directory, { recursive: true, force: true }))
    await untilAborted(drill.run({ directory, command, timeline, signal, cleanup }), signal)
  } catch (error) {
    failure = deadline.signal.aborted ? deadline.signal.reason : error
  } finally {
    clearTimeout(timer)
  }
  const seconds = (systemClock.now() - began) / 1000
  const { evidence } = timeline
  const result = { name: drill.name, passed: failure === undefined, seconds, evidence }
  return failure === undefined ? result : { ...result, problem: problemOf(failure) }
}

/** Waits for the drill, but not longer than its signal allows; what comes later is not looked at. */
async function untilAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  let stop: () => void = () => undefined
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    signal.throwIfAborted()
    await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
    work.catch(() => undefined)
  }
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
