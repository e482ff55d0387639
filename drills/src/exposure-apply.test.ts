import assert from 'node:assert/strict'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isFault, Secret } from '@holdfast/base'
import { offlineAdministration } from '@holdfast/keyserver'
import { parsePolicy } from '@holdfast/seal'
import { createVault, rekeyFleet, unlockVault, type VaultDeps } from '@holdfast/vault'
import { type ExposureWork, respondToExposure, waysOf } from './exposure-apply.ts'
import { makeImage } from './local-fleet.ts'
import { smallArgon, unattended } from './scene.ts'
import { launchServers, type ServerProcess } from './server-process.ts'

const keyserver = fileURLToPath(import.meta.resolve('@holdfast/keyserver')).replace(
  /index\.ts$/,
  'main.ts',
)

describe('the answer to an exposure', () => {
  let directory = ''
  let deps: VaultDeps
  let server: ServerProcess
  const cleanup = new AsyncDisposableStack()
  const steps: string[] = []

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'drills-'))
    deps = unattended(join(directory, 'state'))
    const command = { program: process.execPath, args: [keyserver] }
    const place = { name: 'tang', home: join(directory, 'tang'), command }
    const [launched] = await launchServers(cleanup, [place])
    assert.ok(launched)
    server = launched
  })
  after(async () => {
    await cleanup.disposeAsync()
    await rm(directory, { recursive: true })
  })

  async function makeVolume(name: string, url: string) {
    const volume = await makeImage(join(directory, name), 32 * 1024 * 1024)
    using owner = Secret.copy('set beforehand')
    await createVault(deps, volume, {
      automatic: parsePolicy('tang', { url, thp: await server.thumbprint() }),
      owner,
      ownerDerivation: smallArgon,
    })
    return { name, volume }
  }

  function workFor(volumes: ExposureWork['volumes'], id: string): ExposureWork {
    const onEvent = (step: string) => void steps.push(step)
    return { id, note: 'test', servers: [server], volumes, vault: deps, onEvent }
  }

  it('moves bindings of the main set and of a prefix to keys that no exposed key vouches for', async () => {
    await server.administration.addPrefix('web-17')
    const old = (await server.administration.list()).keys.map(({ kid }) => kid)
    const volumes = [
      await makeVolume('main', server.url),
      await makeVolume('prefixed', `${server.url}/p/web-17`),
    ]
    const report = await respondToExposure(workFor(volumes, 'incident-1'))
    assert.deepEqual([...report.verified].sort(), ['main', 'prefixed'])
    assert.deepEqual(report.unreached, [])
    assert.deepEqual([...report.destroyed].sort(), [...old].sort())
    const thp = await server.thumbprint()
    for (const { volume } of volumes) {
      const [binding] = (await waysOf(deps, volume)).filter((way) => way.purpose === 'automatic')
      const stored = (binding?.inspection?.keys ?? []).map((key) => key.thumbprint)
      assert.ok(stored.includes(thp))
      assert.ok(old.every((kid) => !stored.includes(kid)))
      const { by } = await unlockVault(deps, volume, { testOnly: true })
      assert.equal(by, 'binding')
    }
  })

  it('changes nothing when it is run again for the same incident', async () => {
    const before = await server.administration.list()
    const again = await respondToExposure(workFor([], 'incident-1'))
    assert.deepEqual(again.destroyed, [])
    assert.deepEqual(again.plan.steps, [])
    assert.deepEqual((await server.administration.list()).keys, before.keys)
  })

  it('refuses to strand a volume it cannot read and knows, and destroys nothing then', async () => {
    const { volume } = await makeVolume('away', server.url)
    const lastKnown = await waysOf(deps, volume)
    const absent = { device: join(directory, 'not-there') }
    const work = workFor([{ name: 'away', volume: absent, lastKnown }], 'incident-2')
    await assert.rejects(
      respondToExposure(work),
      (error) => isFault(error, 'drills.destruction_refused') && error.message.includes('away'),
    )
    const hidden = (await server.administration.list()).keys.filter((key) => key.state === 'hidden')
    assert.equal(hidden.length, 3)
    assert.ok(hidden.every(({ compromised }) => compromised?.note === 'incident-2: test'))
    await unlockVault(deps, volume, { testOnly: true })
  })

  it('does not trust an impostor who signs with the exposed keys, as a plain rekey would', async () => {
    const { volume, name } = await makeVolume('mitm', server.url)
    const home = join(directory, 'impostor')
    const { port } = server
    await server.stop() // it writes down when its keys were used
    await cp(server.directory, join(home, 'keys'), { recursive: true, preserveTimestamps: true })
    const command = { program: process.execPath, args: [keyserver] }
    await using impostors = new AsyncDisposableStack()
    const [impostor] = await launchServers(impostors, [{ name: 'tang', home, command, port }])
    await impostor?.administration.rotate()

    const { url } = server
    const administration = offlineAdministration(server.directory)
    const work = {
      ...workFor([{ name, volume }], 'incident-3'),
      servers: [{ name, url, administration }],
    }
    await assert.rejects(respondToExposure(work), (error) =>
      isFault(error, 'drills.destruction_refused'),
    )
    const stored = async () => JSON.stringify(await waysOf(deps, volume))
    const newest = (await impostor?.thumbprint()) ?? ''
    assert.ok(!(await stored()).includes(newest))
    await rekeyFleet(deps, { id: 'plain', volumes: [volume] })
    assert.ok((await stored()).includes(newest))
  })
})
