import { join } from 'node:path'
import { type NodePlacement, planPlacement } from '@holdfast/seal'
import type { VaultDeps, VolumeRef } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { makeOwned, opens, setServers, staysShut, unattended } from './scene.ts'
import type { ServerProcess } from './server-process.ts'

const regions = ['africa', 'america', 'asia', 'australia', 'europe'] as const
const nodesPerRegion = 2

/** Milliseconds between regions, so that "nearest three" is another three in each. */
const distances = {
  africa: { africa: 5, america: 190, asia: 180, australia: 260, europe: 80 },
  america: { africa: 190, america: 5, asia: 170, australia: 160, europe: 90 },
  asia: { africa: 180, america: 170, asia: 5, australia: 110, europe: 150 },
  australia: { africa: 260, america: 160, asia: 110, australia: 5, europe: 250 },
  europe: { africa: 80, america: 90, asia: 150, australia: 250, europe: 5 },
}

interface PlacedNode {
  placement: NodePlacement
  volume: VolumeRef
}

/** The guide's hybrid model: five regions, every machine bound to its nearest three. */
export const fiveRegions: Drill = {
  name: 'five-regions',
  title: 'Five regions, each machine bound to its nearest three',
  summary:
    'The planner assigns ten machines to their nearest three of five servers and binds them, any two of the three open. A region is lost: all open. A second one is lost: exactly those stay shut that the plan says.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const servers = await setServers(stage, regions)
    const machine = unattended(join(directory, 'state'))
    const nodes = await bindAll(stage, machine, servers)
    const [first, second] = ['europe', 'america']
    await lose(stage, servers, first)
    for (const { placement, volume } of nodes) {
      await opens(stage, `${placement.node} opens without ${first}`, machine, volume)
    }
    await lose(stage, servers, second)
    const predicted = nodes.filter(({ placement }) => left(placement, [first, second]) < 2)
    timeline.note('the plan says which machines two lost regions are too many for', {
      nodes: predicted.map(({ placement }) => placement.node),
    })
    for (const node of nodes) {
      const { volume, placement } = node
      const where = `${placement.node} without ${first} and ${second}`
      if (predicted.includes(node)) {
        await staysShut(stage, `${where}: stays shut, as planned`, machine, volume)
      } else await opens(stage, `${where}: opens`, machine, volume)
    }
  },
}

async function bindAll(
  stage: Stage,
  machine: VaultDeps,
  servers: readonly ServerProcess[],
): Promise<PlacedNode[]> {
  const { timeline } = stage
  const offered = await Promise.all(
    servers.map(async (server) => ({ ...(await server.pin()), region: server.name })),
  )
  const wanted = regions.flatMap((region) =>
    Array.from({ length: nodesPerRegion }, (_, i) => ({ name: `${region}-${i + 1}`, region })),
  )
  const request = { servers: 3, threshold: 2, oncePerRegion: true, distances }
  const { nodes, load } = planPlacement(offered, wanted, request)
  const fatal = nodes.flatMap(({ fatalRegions }) => fatalRegions)
  timeline.proves('the plan survives the loss of any one region', fatal.length === 0, { load })
  const placed: PlacedNode[] = []
  for (const placement of nodes) {
    const volume = await makeOwned(stage, machine, placement.node, placement.policy)
    placed.push({ placement, volume })
    const nearest = placement.servers.map(({ region }) => region)
    timeline.note('a machine is bound to its nearest three', { node: placement.node, nearest })
  }
  return placed
}

async function lose(
  { timeline }: Stage,
  servers: readonly ServerProcess[],
  region: string,
): Promise<void> {
  const lost = servers.find(({ name }) => name === region)
  const pid = lost?.pid
  await lost?.kill()
  timeline.note('a region is lost', { region, pid })
}

/** How many of a node's servers stand outside the lost regions. */
function left({ servers }: NodePlacement, lost: readonly string[]): number {
  return servers.filter(({ region }) => !lost.includes(region)).length
}
