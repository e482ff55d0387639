import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { parsePolicy } from '@holdfast/seal'
import type { VaultDeps } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { type ExposureWork, respondToExposure, waysOf } from './exposure-apply.ts'
import { serversPolicy } from './local-fleet.ts'
import {
  makeOwned,
  type OwnedVolume,
  opens,
  passphraseOpens,
  setServers,
  staysShut,
  unattended,
} from './scene.ts'
import type { ServerProcess } from './server-process.ts'

/** The keys of a server may be known to others: one plan, with the machines that are away named. */
export const keyExposure: Drill = {
  name: 'key-exposure',
  title: 'Key material is exposed',
  summary:
    'The keys of one server leaked. One plan marks and rotates them, rekeys and verifies every volume it reaches, and destroys them; it names the volumes that are away and refuses to strand one unasked.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const servers = await setServers(stage, ['leaky', 'sound-1', 'sound-2'])
    const machine = unattended(join(directory, 'state'))
    const estate = await makeEstate(stage, machine, servers)
    const away = [estate['node-3'], estate['node-4']]
    for (const { device } of away) await rename(device, `${device}.away`)
    timeline.note('nodes 3 and 4 are switched off, in a lorry')
    timeline.note('a backup tape with the keys of one server is missing', { server: 'leaky' })

    const work = await workOf(stage, machine, servers, estate)
    await timeline.refuses(
      'everything is rekeyed, but the keys are not destroyed while that strands node 4',
      ['drills.destruction_refused'],
      () => respondToExposure(work),
    )
    const report = await respondToExposure({ ...work, strand: true })
    const left = report.unreached.map(({ volume, margin, recovery }) => [volume, margin, recovery])
    const expected = [
      ['node-3', 0, [0]],
      ['node-4', -1, [0]],
    ]
    const named = JSON.stringify(left) === JSON.stringify(expected)
    timeline.proves('the same command goes on, and names what it could not reach', named, { left })
    timeline.proves('the exposed keys are destroyed', report.destroyed.length === 2)
    for (const name of ['node-1', 'node-2'] as const) {
      await opens(stage, `${name} opens`, machine, estate[name])
    }
    for (const { device } of away) await rename(`${device}.away`, device)
    timeline.note('the lorry arrives: nodes 3 and 4 are back')
    await opens(stage, 'node-3 opens by its other two servers', machine, estate['node-3'])
    const { 'node-4': stranded } = estate
    await staysShut(stage, 'node-4 does not, as the plan had said', machine, stranded)
    await passphraseOpens(stage, 'its recovery way does', stranded, stranded.owner)
    const again = await respondToExposure({ ...work, strand: true })
    timeline.proves('the plan, run again, reaches node 3', again.verified.includes('node-3'), {
      verified: again.verified,
    })
  },
}

type Name = 'node-1' | 'node-2' | 'node-3' | 'node-4'

/** Nodes 1 to 3 open by two of three servers, node 4 by the leaky one alone. */
async function makeEstate(
  stage: Stage,
  machine: VaultDeps,
  servers: readonly ServerProcess[],
): Promise<Record<Name, OwnedVolume>> {
  const twoOfThree = await serversPolicy(servers, 2)
  const alone = parsePolicy('tang', await servers[0]?.pin())
  return {
    'node-1': await makeOwned(stage, machine, 'node-1', twoOfThree),
    'node-2': await makeOwned(stage, machine, 'node-2', twoOfThree),
    'node-3': await makeOwned(stage, machine, 'node-3', twoOfThree),
    'node-4': await makeOwned(stage, machine, 'node-4', alone),
  }
}

async function workOf(
  { directory, timeline, signal }: Stage,
  machine: VaultDeps,
  [leaky]: readonly ServerProcess[],
  estate: Readonly<Record<Name, OwnedVolume>>,
): Promise<ExposureWork> {
  if (leaky === undefined) throw new Error('a server that was set is there')
  const { name, url, administration } = leaky
  return {
    id: 'lost-tape',
    note: 'a backup tape is missing',
    servers: [{ name, url, administration }],
    volumes: await Promise.all(
      Object.entries(estate).map(async ([node, { device }]) => {
        const seen = node < 'node-3' ? device : `${device}.away`
        const lastKnown = await waysOf(unattended(join(directory, 'seen')), { device: seen })
        return { name: node, volume: { device }, lastKnown }
      }),
    ),
    vault: machine,
    signal,
    onEvent: (step, facts) => timeline.note(step, facts),
  }
}
