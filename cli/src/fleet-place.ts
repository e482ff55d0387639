import { readFile, rm, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import {
  codeOf,
  DurableRecord,
  ensureDirectory,
  folderOfOthers,
  isFault,
  isObject,
  lock,
  removeDurable,
  signalProcess,
  systemClock,
} from '@holdfast/base'
import type { WholeFleet } from '@holdfast/drills'
import type { Settings } from './command.ts'
import { cliFault } from './faults.ts'

// Where a local fleet lies and how it is told from the remains of one that was killed: a lock
// beside the directory, held by the kernel as long as the fleet's process lives, and a mark inside
// naming the processes it had started.

const markName = 'fleet.json'

interface Mark {
  fleet: 'holdfast up'
  /** Process ids of its key servers, its coordinator and its nodes. */
  servers: number[]
}

/** The fleet's directory, by default in the runtime directory. */
export function fleetDirectory(settings: Settings, chosen?: string): string {
  return chosen === undefined ? join(settings.runtimeDirectory, 'fleet') : resolve(chosen)
}

/**
 * Takes the directory for a new fleet: locked, and cleared of what a killed one left. Disposing
 * removes it.
 * @throws Fault cli.fleet_busy, cli.directory_unsafe
 */
export async function takePlace(directory: string): Promise<AsyncDisposable> {
  const above = resolve(directory, '..')
  await ensureDirectory(above)
  const weak = await folderOfOthers(above)
  if (weak !== undefined) throw unsafe(weak)
  await using stack = new AsyncDisposableStack()
  stack.use(await lockPlace(directory))
  await clearRemains(directory)
  await ensureDirectory(directory)
  await requireOwn(directory)
  stack.defer(async () => {
    await rm(directory, { recursive: true, force: true })
    await removeDurable(`${directory}.lock`)
  })
  return stack.move()
}

async function lockPlace(directory: string): Promise<AsyncDisposable> {
  try {
    return await lock(`${directory}.lock`, `the local fleet in ${directory}`)
  } catch (error) {
    if (!isFault(error, 'base.locked')) throw error
    throw cliFault('cli.fleet_busy', error.message, {
      hint: 'look at it: holdfast up status; or start another one: holdfast up --directory DIR',
    })
  }
}

/** Other users must not be able to enter: the holders' private keys lie there. */
async function requireOwn(directory: string): Promise<void> {
  const { uid, mode } = await stat(directory)
  if (uid === process.getuid?.() && (mode & 0o022) === 0) return
  throw unsafe(directory)
}

function unsafe(directory: string): Error {
  const text = `${directory} belongs to somebody else or is writable by others`
  return cliFault('cli.directory_unsafe', text, {
    hint: 'choose a directory of your own: --directory DIR',
  })
}

function markOf(directory: string): DurableRecord<Mark> {
  return new DurableRecord(join(directory, markName), (value) => {
    const servers = isObject(value) && Array.isArray(value.servers) ? value.servers : []
    return { fleet: 'holdfast up', servers: servers.map(Number) }
  })
}

/** Writes down what runs, for the next start after a kill. */
export async function markPlace({ local, plane }: WholeFleet): Promise<void> {
  const members = [
    ...local.servers,
    ...(plane === undefined ? [] : [plane.coordinator, ...plane.nodes]),
  ]
  const pids = members.flatMap(({ pid }) => pid ?? [])
  await markOf(local.directory).write({ fleet: 'holdfast up', servers: pids })
}

/** Ends the processes that a killed fleet left running, and removes its files; nothing else is touched. */
async function clearRemains(directory: string): Promise<void> {
  const mark = await markOf(directory).read()
  if (mark === undefined) return
  await Promise.all(mark.servers.map((pid) => endServer(pid, directory)))
  await rm(directory, { recursive: true, force: true })
}

/** Asks a process to end and waits for that; one that does not is ended. */
async function endServer(pid: number, directory: string): Promise<void> {
  for (let round = 0; round < 100 && (await isServerOf(pid, directory)); round += 1) {
    if (round === 0) signalProcess(pid, 'SIGTERM')
    if (round === 60) signalProcess(pid, 'SIGKILL')
    await systemClock.sleep(100)
  }
}

async function isServerOf(pid: number, directory: string): Promise<boolean> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(`${directory}/`)
  } catch (error) {
    // proc(5): one that ends while its file is open cannot be read any more.
    if (['ENOENT', 'ESRCH'].includes(codeOf(error) ?? '')) return false
    throw error
  }
}
