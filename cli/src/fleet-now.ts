import type { FleetRehearsal, FleetStatus, PinStatus } from '@holdfast/drills'

/**
 * The last rehearsal, corrected by what is known since: a key server that has been stopped proves
 * nothing any more, and the ways that need it have lost a margin. One that was started again has yet to
 * prove itself. Pure.
 * @param now milliseconds since 1970, when the servers were looked at
 */
export function asItStands(
  rehearsal: FleetRehearsal,
  { servers }: FleetStatus,
  now: number,
): FleetRehearsal {
  const stopped = new Map(
    servers.filter(({ running }) => !running).map(({ name, url }) => [url, name]),
  )
  const isLost = ({ label, pin, state }: PinStatus) =>
    pin === 'tang' && state === 'proven' && stopped.has(label)
  const lost = rehearsal.pins.filter(isLost)
  if (lost.length === 0) return rehearsal
  const pins = rehearsal.pins.map((pin) =>
    isLost(pin)
      ? { ...pin, state: 'failed' as const, problem: `${stopped.get(pin.label)} is stopped` }
      : pin,
  )
  const ways = rehearsal.ways.map((way) => {
    const fewer = lost.filter((pin) => pin.way === way.way && pin.keyslot === way.keyslot).length
    if (fewer === 0) return way
    const margin = way.margin - fewer
    return { ...way, margin, state: margin < 0 ? ('failed' as const) : way.state }
  })
  return { at: now, ways, pins }
}
