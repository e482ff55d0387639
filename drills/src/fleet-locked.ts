import { isFault, parseJson, systemClock } from '@holdfast/base'
import { exchange, pinnedTls } from '@holdfast/link'
import {
  type LockedState,
  lockedStatePath,
  lockedStateSchema,
  unlockPath,
} from '@holdfast/protocol'
import { drillsFault } from './faults.ts'
import type { FleetNode } from './fleet-node.ts'

// A node at its own port, which needs no coordinator: how it stands, and a key that is pushed to it.

/** Milliseconds between two looks: one address may look sixty times in a minute. */
const pause = 2_500
const mostLooks = 96

/** Looks until something is so; a port that is not open yet is waited for. @throws Fault drills.timed_out */
export async function lookUntil(
  node: FleetNode,
  what: string,
  found: (state: LockedState) => boolean,
  signal: AbortSignal,
): Promise<LockedState> {
  for (let looks = 0; looks < mostLooks; looks += 1) {
    const state = await look(node, signal)
    if (state !== undefined && found(state)) return state
    await systemClock.sleep(pause, signal)
  }
  throw drillsFault('drills.timed_out', `${node.name} ${what}: not in time`)
}

async function look(node: FleetNode, signal: AbortSignal): Promise<LockedState | undefined> {
  try {
    const { body } = await ask(node, lockedStatePath, signal)
    return lockedStateSchema.parse(parseJson(body, 'the state', 1024 * 1024))
  } catch (error) {
    if (isFault(error, 'link.unreachable')) return undefined
    throw error
  }
}

/** Pushes a sealed passphrase; gives what the node says. */
export async function pushTo(
  node: FleetNode,
  sealed: string,
  signal: AbortSignal,
): Promise<{ status: number; body: string }> {
  return await ask(node, unlockPath, signal, JSON.stringify({ sealed }))
}

async function ask(
  { node, peerPort }: FleetNode,
  path: string,
  signal: AbortSignal,
  body?: string,
) {
  const tls = pinnedTls(node)
  const sent = body === undefined ? { method: 'GET' as const } : { method: 'POST' as const, body }
  try {
    const url = `https://127.0.0.1:${peerPort}${path}`
    return await exchange(url, { ...sent, tls, signal, timeout: 60_000 })
  } finally {
    tls.destroy()
  }
}
