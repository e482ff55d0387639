import { seedFleet } from './agents-fleet.ts'
import { AgentsProcess, startCoordinator } from './agents-processes.ts'
import type { BenchContext } from './bench.ts'
import { processorTime } from './process-cpu.ts'
import { type BenchResult, compare } from './result.ts'

// Guardians are lost for good: how long until everybody whom they guarded has others.

const wards = 1000
/** Each node has its five neighbours as guardians: of six in a row, the others lose exactly one. */
const every = 6

/** From the loss until the last ward has proven its new set, by the coordinator's own duty. */
export async function benchReshare(context: BenchContext): Promise<BenchResult[]> {
  const count = context.agents ?? wards
  const name = `reshare/${count}-wards`
  if (!context.selects(name)) return []
  context.progress(name)
  const shape = { guardians: every - 1, threshold: 3, domains: 8, lostMinutes: 1 }
  const all = Math.ceil((count * every) / (every - 1) / every) * every
  const fleet = await seedFleet(await context.folder(), { ...shape, count: all })
  await using coordinator = await startCoordinator(fleet.directory)
  await using agents = new AgentsProcess(fleet.cluster)
  const { agentsFile, identity } = fleet
  const { url, pid } = coordinator
  await agents.order({ do: 'connect', agentsFile, url, identity, inFlight: 100 })
  const { lost = 0, stranded = 0 } = await agents.order({ do: 'lose', every })
  const before = processorTime(pid).micros
  const moved = await agents.order({ do: 'await-reshared', seconds: 300 })
  const cpu = (processorTime(pid).micros - before) / 1000
  const figures = {
    lost,
    wards: stranded,
    firstSeconds: moved.first ?? Number.NaN,
    p50Seconds: moved.p50 ?? Number.NaN,
    p99Seconds: moved.p99 ?? Number.NaN,
    lastSeconds: moved.last ?? Number.NaN,
    secondsFromFirstToLast: (moved.last ?? Number.NaN) - (moved.first ?? Number.NaN),
    notMoved: moved.left ?? Number.NaN,
    coordinatorCpuMsPerWard: cpu / stranded,
  }
  return [compare(name, [figures], {}, [], notes(all))]
}

function notes(all: number): string[] {
  return [
    `${all} nodes, each with its ${every - 1} neighbours as guardians, of which 3 are needed; every ${every}th node is gone from one moment to the next, so that each of the others loses one guardian`,
    'a node counts as lost after 60 s of silence (lostMinutes of the manifest, 1 here), which is part of every figure but the one from first to last',
    'a real coordinator process with its own duty on SQLite; the agents in one other process make and sign real keys and answer as the protocol asks, but their vaults are not changed: that takes as long as rekey/200 says and happens on every node by itself',
  ]
}
