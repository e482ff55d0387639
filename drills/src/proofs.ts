import { type Fault, isFault, systemClock } from '@holdfast/base'
import type { Rehearsal } from '@holdfast/seal'
import { type RehearsedWay, rehearseVault, type VaultDeps } from '@holdfast/vault'
import type { FleetRehearsal, FleetVolume, PinStatus, WayStatus } from './fleet.ts'

type Way = WayStatus['way']

/**
 * Rehearses a volume and remembers when each pin was last proven. When the header cannot be read, the
 * ways known from before are shown as failing: they are what is missing.
 */
export class Proofs {
  readonly #deps: VaultDeps
  readonly #volume: FleetVolume
  readonly #proven = new Map<string, number>()
  #last: FleetRehearsal = { at: 0, ways: [], pins: [] }

  constructor(deps: VaultDeps, volume: FleetVolume) {
    this.#deps = deps
    this.#volume = volume
  }

  async rehearse(signal?: AbortSignal): Promise<FleetRehearsal> {
    const { device } = this.#volume
    try {
      const options = { timeout: 20_000, ...(signal === undefined ? {} : { signal }) }
      const { ways } = await rehearseVault(this.#deps, { device }, options)
      const at = systemClock.now()
      const bound = ways.flatMap((one) => this.#boundWay(one, at))
      this.#last = {
        at,
        ways: bound.map(({ status }) => status),
        pins: bound.flatMap(({ pins }) => pins),
      }
    } catch (error) {
      signal?.throwIfAborted()
      if (!isFault(error)) throw error
      this.#last = allFailing(this.#last, error)
    }
    return this.#last
  }

  #boundWay(
    { keyslot, purpose, rehearsal, proof, problem }: RehearsedWay,
    at: number,
  ): { status: WayStatus; pins: PinStatus[] }[] {
    if (rehearsal === undefined || (purpose !== 'automatic' && purpose !== 'recovery')) return []
    const { state } = proof
    const leaves = rehearsal.children ?? [rehearsal]
    const fault = rehearsal.fault ?? leaves.find((leaf) => leaf.fault !== undefined)?.fault
    const status: WayStatus = {
      way: purpose,
      keyslot,
      state,
      threshold: rehearsal.threshold ?? 1,
      of: leaves.length,
      margin: rehearsal.margin ?? (state === 'proven' ? 0 : -1),
      lastProof: this.#lastProof(`${purpose}`, state, at),
      fault: state === 'proven' ? undefined : fault,
      ...(problem === undefined ? {} : { problem }),
    }
    return [{ status, pins: leaves.map((leaf) => this.#pin(purpose, keyslot, leaf, at)) }]
  }

  #pin(way: Way, keyslot: number, leaf: Rehearsal, at: number): PinStatus {
    const { pin, label, state, fault } = leaf
    const lastProof = this.#lastProof(`${way} ${pin} ${label}`, state, at)
    return { way, keyslot, pin, label, state, lastProof, fault }
  }

  #lastProof(key: string, state: Rehearsal['state'], at: number): number | undefined {
    if (state === 'proven') this.#proven.set(key, at)
    return this.#proven.get(key)
  }
}

function allFailing({ ways, pins }: FleetRehearsal, fault: Fault): FleetRehearsal {
  return {
    at: systemClock.now(),
    ways: ways.map((way) => ({ ...way, state: 'failed', margin: -way.threshold, fault })),
    pins: pins.map((pin) => ({ ...pin, state: 'failed', fault })),
  }
}
