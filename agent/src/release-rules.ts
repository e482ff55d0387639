import { BlockList, isIP } from 'node:net'
import { agentFault } from './faults.ts'

// Whether a guardian answers, decided from what it knows. Times are milliseconds of a clock that only
// ever goes forward since this guardian started; after a restart a hold begins anew, which is the safe
// side.

export interface ReleasePolicy {
  /** A release is announced and held this long before it is answered. */
  holdMinutes: number
  releasesPerHour: number
  /** CIDR ranges that wards may ask from; none means any. */
  sources: readonly string[]
}

/** What a guardian remembers of one ward. */
export interface WardMemory {
  /** Moments of releases in the last hour. */
  releases: readonly number[]
  /** When the hold under way began, and for which source. */
  held?: { since: number; source: string }
  /** Where the last release went. */
  lastSource?: string
}

export type Decision =
  | { kind: 'release'; memory: WardMemory; moved: boolean }
  | { kind: 'hold'; memory: WardMemory; moved: boolean; retryAfter: number; begun: boolean }
  | { kind: 'refuse'; fault: Error }

const hour = 3_600_000

/**
 * Says whether answers depend on where a ward is, so that it must ask outside of the tunnel. WireGuard
 * believes whatever authentic packet came last, and a stolen node can send one from an address that it
 * does not have; TCP outside of the tunnel begins only when answers arrive at the address that asks.
 */
export function needsWayBack({ holdMinutes, sources }: ReleasePolicy): boolean {
  return holdMinutes > 0 || sources.length > 0
}

/** Decides one release to a ward that is known and not frozen. */
export function decideRelease(
  policy: ReleasePolicy,
  memory: WardMemory,
  request: { source: string; now: number },
): Decision {
  const { source, now } = request
  if (!isAllowed(source, policy.sources)) {
    const text = `${source} is not an address that this node may ask from`
    return { kind: 'refuse', fault: agentFault('agent.guardian_source', text) }
  }
  const releases = memory.releases.filter((moment) => now - moment < hour)
  if (releases.length >= policy.releasesPerHour) {
    const text = `${releases.length} releases to this node within an hour`
    return { kind: 'refuse', fault: agentFault('agent.guardian_rate', text) }
  }
  const moved = memory.lastSource !== undefined && memory.lastSource !== source
  const released = { releases: [...releases, now], lastSource: source }
  if (policy.holdMinutes === 0) return { kind: 'release', memory: released, moved }
  const wait = policy.holdMinutes * 60_000
  const { held } = memory
  // Once over, a hold is good for as long again: the node may need more than one try.
  const valid = held !== undefined && held.source === source && now - held.since < 2 * wait
  if (valid && now - held.since >= wait)
    return { kind: 'release', memory: { ...released, held }, moved }
  const hold = valid ? held : { since: now, source }
  const retryAfter = Math.ceil((hold.since + wait - now) / 1000)
  return { kind: 'hold', memory: { ...memory, held: hold }, moved, retryAfter, begun: !valid }
}

/** True when the address is in one of the ranges. A range that cannot be read allows nobody. */
function isAllowed(source: string, ranges: readonly string[]): boolean {
  if (ranges.length === 0) return true
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', prefix] = range.split('/')
    const family = isIP(address)
    const length = Number(prefix ?? (family === 4 ? 32 : 128))
    if (family === 0 || !Number.isInteger(length) || length < 0) continue
    if (length > (family === 4 ? 32 : 128)) continue
    list.addSubnet(address, length, family === 4 ? 'ipv4' : 'ipv6')
  }
  return list.check(source, isIP(source) === 4 ? 'ipv4' : 'ipv6')
}
