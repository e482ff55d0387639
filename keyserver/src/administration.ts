import { type Clock, systemClock } from '@holdfast/base'
import type { CurveName } from '@holdfast/crypto'
import type { ChangeResult } from './change.ts'
import type { Health } from './engine.ts'
import { keyserverFault } from './faults.ts'
import { type Inventory, listKeys } from './inventory.ts'
import { addPrefix, markCompromised, revokePrefix, setHold } from './prefix.ts'
import { type RetireOptions, type RetirePlan, retire } from './retire.ts'
import { type RotationOptions, rotate } from './rotate.ts'

/** A running server's state, as its administration socket tells it. */
export interface ServerStatus {
  readonly directory: string
  readonly port: number
  readonly pid: number
  readonly workers: number
  readonly restarts: number
  readonly connections: number
  readonly health: Health
}

/**
 * What can be done to a key server. Two implementations: on the directory itself, and through the
 * socket of the server that serves it; after the latter, every server process answers from the new
 * state when the promise resolves.
 */
export interface Administration {
  /** @throws Fault keyserver.not_running without a server */
  status(): Promise<ServerStatus>
  list(): Promise<Inventory>
  rotate(options?: RotationOptions): Promise<ChangeResult>
  retire(options?: RetireOptions): Promise<RetirePlan>
  addPrefix(name: string, options?: { curve?: CurveName }): Promise<ChangeResult>
  revokePrefix(name: string): Promise<ChangeResult>
  markCompromised(kids: readonly string[], note: string): Promise<void>
  /** Answers recoveries 503 until released; survives a restart. */
  hold(reason: string): Promise<void>
  release(): Promise<void>
  /** Reads the key directory again now. @throws Fault keyserver.not_running without a server */
  reload(): Promise<void>
}

/** Administers a key directory that no server need be serving; a server notices within a second. */
export function offlineAdministration(
  directory: string,
  clock: Clock = systemClock,
): Administration {
  const notRunning = () =>
    keyserverFault('keyserver.not_running', `no key server serves ${directory} here`, {
      hint: 'start it with holdfast keyserver serve, or name its socket with --admin',
    })
  return {
    status: () => Promise.reject(notRunning()),
    list: () => listKeys(directory),
    rotate: (options) => rotate(directory, options, clock),
    retire: (options) => retire(directory, options, clock),
    addPrefix: (name, options) => addPrefix(directory, name, options, clock),
    revokePrefix: (name) => revokePrefix(directory, name, clock),
    markCompromised: async (kids, note) => {
      await markCompromised(directory, kids, note, clock.now())
    },
    hold: async (reason) => {
      await setHold(directory, reason, clock.now())
    },
    release: async () => {
      await setHold(directory, undefined, clock.now())
    },
    reload: () => Promise.reject(notRunning()),
  }
}
