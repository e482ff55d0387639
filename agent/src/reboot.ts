import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, DurableRecord, messageOf, run } from '@holdfast/base'
import { z } from 'zod'
import type { CommandHandler } from './command-handler.ts'
import { agentFault } from './faults.ts'

// A reboot that was ordered: services stop, the vault closes, the coordinator hears that the node goes
// down, and the machine goes. It is answered when the node is back, by the kernel's boot id: a process
// that has only been started again has the same one.

export interface RebootDeps {
  directory: string
  /** Gives another text after every boot (random(4), boot_id). */
  bootIdPath: string
  /** How this machine is rebooted; undefined when the agent has no way. */
  reboot: (() => Promise<void>) | undefined
  /** Stops services and closes the vault. */
  close: () => Promise<void>
  /** Opens it again when the machine has not gone down. */
  reopen: () => Promise<void>
  clock: Clock
  /** Milliseconds that the machine may take to go down. Default 300 000. */
  patience?: number
}

const recordSchema = z.strictObject({
  v: z.literal(1),
  command: z.string(),
  before: z.string(),
})
type Recorded = z.infer<typeof recordSchema>

/** Milliseconds that the coordinator gets to hear of it. */
const farewell = 5_000

/**
 * Closes the vault and reboots the machine. The answer comes after it: another boot id than before.
 * @throws Fault agent.reboot_unavailable by the handler
 */
export function rebootHandler(deps: RebootDeps): CommandHandler<'reboot'> {
  const record = new DurableRecord<Recorded>(join(deps.directory, 'reboot.json'), (value) =>
    recordSchema.parse(value),
  )
  return {
    restart: 'again',
    lane: 'services',
    run: async ({ id, given, signal, output }) => {
      const now = await bootId(deps.bootIdPath)
      const begun = await record.read()
      if (begun?.command === id && begun.before !== now) return { before: begun.before, after: now }
      if (deps.reboot === undefined) {
        throw agentFault(
          'agent.reboot_unavailable',
          'the agent knows no way to reboot this machine',
          {
            hint: 'start it with --reboot-command, or reboot the machine by hand',
          },
        )
      }
      await record.write({ v: 1, command: id, before: now })
      await closed(deps, given.force)
      const told = output('the services have stopped and the vault is closed; going down\n')
      await Promise.race([told.catch(() => undefined), deps.clock.sleep(farewell, signal)]).catch(
        () => undefined,
      )
      await goDown(deps, deps.reboot, signal)
      return await stillUp(deps, signal)
    },
  }
}

/** With `force` the machine goes down although something holds the vault open. */
async function closed({ close, reopen }: RebootDeps, force: boolean): Promise<void> {
  try {
    await close()
  } catch (error) {
    if (force) return
    await reopen()
    throw agentFault('agent.reboot_failed', `the vault does not close: ${messageOf(error)}`, {
      hint: 'with force the node goes down all the same',
    })
  }
}

async function goDown(deps: RebootDeps, reboot: () => Promise<void>, signal: AbortSignal) {
  try {
    await reboot()
  } catch (error) {
    if (signal.aborted) throw error // it goes down already
    await deps.reopen()
    throw agentFault('agent.reboot_failed', `the machine does not reboot: ${messageOf(error)}`)
  }
}

/** Going down ends this process, which leaves the command begun; being here for long is a failure. */
async function stillUp(
  { clock, patience = 300_000, reopen }: RebootDeps,
  signal: AbortSignal,
): Promise<never> {
  await clock.sleep(patience, signal)
  await reopen()
  throw agentFault('agent.reboot_failed', `the machine was still up after ${patience / 1000} s`)
}

/** The kernel's name for this boot. */
export async function bootId(path: string): Promise<string> {
  return (await readFile(path, 'utf8')).trim().slice(0, 64)
}

/** A configured command as words; no shell reads it. */
export function rebootCommand(line: string): () => Promise<void> {
  const [program = '', ...args] = line.trim().split(/\s+/)
  return async () => {
    await run(program, args)
  }
}
