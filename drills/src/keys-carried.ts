import { join } from 'node:path'
import { ensureDirectory, run } from '@holdfast/base'
import { parsePolicy } from '@holdfast/seal'
import type { Drill, Stage } from './drill.ts'
import { respondToExposure } from './exposure-apply.ts'
import { copyDisk, makeOwned, opens, setServers, staysShut, unattended } from './scene.ts'
import { launchServers, type ServerProcess } from './server-process.ts'

/** The last resort: the server's keys go to the site in somebody's bag, and are burnt afterwards. */
export const keysCarriedToSite: Drill = {
  name: 'keys-carried-to-site',
  title: 'Key material is carried to a site',
  summary:
    'A site is cut off and the keys of its server are carried there to start it. That is a breach: the keys are marked compromised, every volume is rekeyed, the keys are destroyed, and what was carried opens nothing that was rekeyed.',
  run: async (stage) => {
    const { directory, timeline, signal } = stage
    const [server] = await setServers(stage, ['tang'])
    if (server === undefined) throw new Error('a server that was set is there')
    const machine = unattended(join(directory, 'state'))
    const policy = parsePolicy('tang', await server.pin())
    const atSite = await makeOwned(stage, machine, 'at-site', policy)
    const elsewhere = await makeOwned(stage, machine, 'elsewhere', policy)
    const before = await copyDisk(atSite, join(directory, 'copy-from-before.img'))
    await ensureDirectory(join(directory, 'bag'))
    await server.stop() // it writes down when its keys were used
    await run('cp', ['-a', '--', server.directory, join(directory, 'bag', 'keys')])
    timeline.note('the keys are carried to the site', { from: server.name })
    await withCarriedServer(stage, server, async () => {
      await opens(stage, 'the carried keys open the node at the site', machine, atSite)
    })

    const names = { 'at-site': atSite, elsewhere }
    const { verified, destroyed } = await respondToExposure({
      id: 'carried',
      note: 'carried to a site',
      servers: [server],
      volumes: Object.entries(names).map(([name, { device }]) => ({ name, volume: { device } })),
      vault: machine,
      signal,
      onEvent: (step, facts) => timeline.note(step, facts),
    })
    timeline.proves('every volume is rekeyed and verified', verified.length === 2, { verified })
    await isRecorded(stage, server, destroyed)
    for (const volume of [atSite, elsewhere]) {
      await opens(stage, 'a rekeyed volume opens', machine, volume)
    }
    await withCarriedServer(stage, server, async () => {
      for (const volume of [atSite, elsewhere]) {
        await staysShut(stage, 'what was carried does not open it any more', machine, volume)
      }
      const thief = unattended(join(directory, 'thief'))
      await opens(stage, 'BUT it opens a copy of the disk made before', thief, before)
      timeline.note('so where such a copy may exist, the data must be re-encrypted as well', {
        command: 'cryptsetup reencrypt DEVICE',
      })
    })
  },
}

/** Runs the carried keys at the server's own address while the real server cannot be reached. */
async function withCarriedServer(
  stage: Stage,
  server: ServerProcess,
  work: () => Promise<void>,
): Promise<void> {
  const { directory, command, timeline } = stage
  await server.stop()
  await using site = new AsyncDisposableStack()
  const place = { name: 'site', home: join(directory, 'bag'), command, port: server.port }
  await launchServers(site, [{ ...place, initialise: false }])
  timeline.note('the site has only the carried keys', { url: server.url })
  await work()
  await site.disposeAsync()
  await server.start()
  timeline.note('the network is back', { url: server.url })
}

/** The server's own records say what happened to the keys. */
async function isRecorded(
  { timeline }: Stage,
  server: ServerProcess,
  destroyed: readonly string[],
): Promise<void> {
  const { keys } = await server.administration.list()
  const gone = keys.filter(({ kid }) => destroyed.includes(kid))
  const holds = gone.length === 2 && gone.every((key) => key.state === 'retired' && key.compromised)
  timeline.proves('the server has them as compromised and destroyed', holds, {
    keys: gone.map(({ kid, state, compromised }) => ({ kid, state, note: compromised?.note })),
  })
}
