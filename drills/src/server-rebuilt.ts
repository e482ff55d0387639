import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '@holdfast/base'
import { backup, restore } from '@holdfast/keyserver'
import { createPins, parsePolicy } from '@holdfast/seal'
import { regenVault } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { holdersPolicy, holdersPresent, type LocalHolder, makeHolders } from './holders.ts'
import { keysOf, makeOwned, opens, setServers, staysShut, unattended } from './scene.ts'
import { launchServers, type ServerProcess } from './server-process.ts'

/** The machine of a key server is gone; what is left is its sealed backup and the holders. */
export const serverRebuilt: Drill = {
  name: 'server-rebuilt',
  title: 'A key server is reinstalled and restored from its backup',
  summary:
    'A key server that had rotated is lost with its disk. A new one refuses to start empty, two of three holders restore its sealed backup, hidden keys included, and machines bound before and after the rotation open.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const [server] = await setServers(stage, ['tang'])
    if (server === undefined) throw new Error('a server that was set is there')
    const holders = await makeHolders(join(directory, 'holders'), 3)
    const machine = unattended(join(directory, 'state'))
    const policy = parsePolicy('tang', await server.pin())
    const early = await makeOwned(stage, machine, 'bound-before', policy)
    const late = await makeOwned(stage, machine, 'bound-after', policy)
    await server.administration.rotate()
    await regenVault(machine, late, 1)
    timeline.note('the server rotated: one machine needs the hidden key, one the new one')
    const keys = await keysOf(server)
    const sealed = await backUp(stage, server, holders)

    await server.kill()
    await rm(server.directory, { recursive: true })
    timeline.note('the server is lost with its disk', { pid: server.pid })
    for (const volume of [early, late]) {
      await staysShut(stage, 'a machine that needs it stays shut', machine, volume)
    }
    await refusesEmpty(stage, server)
    await restoreWith(stage, server, sealed, holders)
    await server.start()
    const same = (await keysOf(server)).sort().join() === [...keys].sort().join()
    timeline.proves('the rebuilt server has every key, the hidden ones included', same, { keys })
    await opens(stage, 'the machine bound before the rotation opens', machine, early)
    await opens(stage, 'the machine bound after the rotation opens', machine, late)
  },
}

async function backUp(
  { directory, timeline, signal }: Stage,
  server: ServerProcess,
  holders: readonly LocalHolder[],
): Promise<string> {
  const output = join(directory, 'tang.backup')
  const policy = holdersPolicy(holders, 2)
  const request = { directory: server.directory, policy, pins: createPins(), output, signal }
  const { keys, digest } = await backup(request, Date.now())
  const sealed = await readFile(output, 'utf8')
  timeline.proves('all keys are in the sealed backup, each proven', keys.length === 4, { digest })
  const files = (await readdir(server.directory)).filter((name) => name.endsWith('.jwk'))
  const secrets = await Promise.all(
    files.map(async (name) => {
      const { d } = JSON.parse(await readFile(join(server.directory, name), 'utf8')) as {
        d: string
      } // a key file
      return d
    }),
  )
  const bare = secrets.filter((d) => sealed.includes(d)).length
  timeline.proves('none of them can be read in it', bare === 0 && secrets.length === 4)
  return sealed
}

async function refusesEmpty(
  { command, timeline }: Stage,
  { directory, port }: ServerProcess,
): Promise<void> {
  const home = join(directory, '..')
  await using none = new AsyncDisposableStack()
  const place = { name: 'reinstalled', home, command, port, initialise: false }
  const fault = await timeline.refuses(
    'the reinstalled server does not start without keys',
    ['base.program_failed'],
    () => launchServers(none, [place]),
  )
  const says = messageOf(fault).includes('keyserver.directory')
  timeline.proves('and says that the directory is the reason', says, { says: messageOf(fault) })
}

async function restoreWith(
  { timeline, signal }: Stage,
  { directory }: ServerProcess,
  sealed: string,
  holders: readonly LocalHolder[],
): Promise<void> {
  const pinsOf = (present: readonly LocalHolder[]) =>
    createPins({ holders: holdersPresent(present) })
  const one = holders.slice(0, 1)
  await timeline.refuses('one holder cannot restore it', ['seal.threshold_not_met'], () =>
    restore({ directory, sealed, pins: pinsOf(one), signal }),
  )
  const two = holders.slice(1)
  const { restored, proven } = await restore({ directory, sealed, pins: pinsOf(two), signal })
  timeline.proves('two holders restore it; each key has performed its work', proven.length === 4, {
    holders: two.map(({ name }) => name),
    restored,
  })
}
