import { failed, type Judged, names, ok, type Rule, warning } from './doctor-findings.ts'
import { type FleetHere, startServer } from './fleet-here.ts'

// The layer below the nodes of a local fleet: its key servers, of which every vault needs some. Only
// there are they this machine's own; elsewhere each node knows which of its key servers answer. Pure.

export const serverRules: readonly Rule<FleetHere>[] = [
  { layer: 'key servers', independent: true, judge: judgeServers },
]

function judgeServers(fleet: FleetHere): Judged | undefined {
  if (fleet.processes === undefined) return undefined
  const { servers, serversNeeded: needed } = fleet.processes
  const stopped = servers.filter(({ running }) => !running).map(({ name }) => name)
  const up = servers.length - stopped.length
  const text = `${up} of ${servers.length} run, ${needed} are needed`
  if (stopped.length === 0) return ok(text)
  const next = stopped.map((name) => startServer(fleet, name))
  if (up < needed) {
    return failed(
      `${text}: nothing that is locked opens by itself; stopped: ${names(stopped)}`,
      ...next,
    )
  }
  return warning(`${text}; stopped: ${names(stopped)}`, ...next)
}
