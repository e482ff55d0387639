import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { readIfPresent, systemClock } from '@holdfast/base'
import type { ServiceStatus } from '@holdfast/protocol/commands'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import { keysPath, makeKeys, writeKeys } from './identity.ts'
import { plainSeal } from './key-seal.ts'
import { factoryState, type LifeState } from './life-state.ts'
import { isTokenOf, SigningKey } from './node-secrets.ts'
import { NodeWorks } from './node-works.ts'
import { unitName } from './service-unit.ts'
import type { ServicesMount } from './services.ts'
import type { PresentUnit } from './services-plan.ts'
import type { Systemd } from './systemd.ts'

// A service is never started without its token, in whatever order things happen. The files, keys and
// tokens are real; systemd is a model that fails a unit whose credential cannot be loaded, as
// systemd.exec(5) says (status 243), and a vault is a directory that is moved to where it is mounted.

const enrolling: LifeState['task'] = { kind: 'enrol', step: 'report' }
const web = unitName('web')

class ModelSystemd implements Systemd {
  readonly units = new Map<string, PresentUnit>()
  /** Units by how their starts went. */
  readonly started: string[] = []
  /** The tokens that were loaded. */
  readonly tokens: string[] = []

  async present() {
    return new Map(this.units)
  }

  async show(names: readonly string[]) {
    return new Map(
      names.map((name) => [name, { ActiveState: this.units.get(name)?.active ?? 'inactive' }]),
    )
  }

  async write(unit: string, text: string) {
    const known = this.units.get(unit) ?? { active: 'inactive', begun: false }
    this.units.set(unit, { ...known, text })
  }

  async remove(unit: string) {
    this.units.delete(unit)
  }

  async reload() {}
  async reboot() {}

  async start(names: readonly string[]) {
    for (const name of names) {
      const { text = '' } = this.units.get(name) ?? {}
      const path = /^LoadCredential=token:(.*)$/m.exec(text)?.[1]
      const token = path === undefined ? undefined : await readIfPresent(path, 8192)
      this.units.set(name, { text, active: token === undefined ? 'failed' : 'active', begun: true })
      this.started.push(`${name} ${token === undefined ? '243/CREDENTIALS' : 'active'}`)
      if (token !== undefined) this.tokens.push(token.toString('utf8'))
    }
  }

  async stop(names: readonly string[]) {
    for (const name of names) {
      const known = this.units.get(name)
      if (known !== undefined) this.units.set(name, { ...known, active: 'inactive', begun: false })
    }
  }

  async restart(unit: string) {
    await this.start([unit])
  }
}

async function machine() {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-services-tokens-'))
  const [directory, path] = [join(root, 'node'), join(root, 'mounted')]
  await mkdir(directory)
  for (const device of ['one', 'two']) await mkdir(join(root, device))
  const keys = makeKeys()
  await writeKeys(keysPath(directory), keys)
  let mounted: string | undefined
  const mount: ServicesMount = {
    path,
    isMounted: async () => mounted !== undefined,
    mount: async (device) => {
      await rename(join(root, device), path)
      mounted = device
    },
    unmount: async () => {
      if (mounted !== undefined) await rename(path, join(root, mounted))
      mounted = undefined
    },
  }
  const service = { command: ['/bin/web'], directory: 'web', restart: 'no' }
  const here = {
    ...{ root, directory, keys, mount, systemd: new ModelSystemd() },
    state: { ...factoryState, phase: 'open', task: enrolling } as LifeState,
    services: { web: service } as Record<string, unknown>,
    incidents: [] as string[],
  }
  const works = () =>
    new NodeWorks({
      ...{ options: {}, directory, keys, keeping: plainSeal, runtimeDirectory: root, mount },
      systemd: here.systemd,
      state: () => here.state,
      // Only its services and checks are read here.
      policy: () => ({ services: here.services, healthChecks: {} }) as unknown as PolicyDocument,
      closeVault: async () => undefined,
      reopenVault: async () => undefined,
      onChange: () => undefined,
      onIncident: (code) => void here.incidents.push(code),
      clock: systemClock,
    })
  return {
    ...{ here, works },
    /** Whether the unit's last token is one of the signing key that the node has now. */
    async isGood(name = 'web') {
      const key = await new SigningKey(directory, keys, plainSeal).read()
      const token = here.systemd.tokens.at(-1) ?? ''
      return key !== undefined && isTokenOf(token, keys.node, name, key)
    },
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  }
}

/** Opens the vault as the agent does, and waits until that has had its effect. */
async function open(works: NodeWorks, device = 'one'): Promise<readonly ServiceStatus[]> {
  works.afterOpen(device)
  await works.services.converge()
  return works.services.states
}

test('a service waits for its token while the enrolment is still reporting, and then starts once', async () => {
  await using all = await machine()
  const { here } = all
  const works = all.works()
  const [waiting] = await open(works)
  assert.deepEqual(here.systemd.started, [])
  assert.equal(waiting?.state, 'stopped')
  assert.match(waiting?.detail ?? '', /no token yet/)
  await assert.rejects(works.services.restart('web'), { code: 'agent.service_refused' })
  // The agent starts again in the middle of it.
  const after = all.works()
  await open(after)
  assert.deepEqual(here.systemd.started, [])
  here.state = { ...factoryState, phase: 'open' }
  await after.services.converge()
  assert.deepEqual(here.systemd.started, [`${web} active`])
  assert.equal(await all.isGood(), true)
  assert.equal(after.services.states[0]?.state, 'running')
  await after.services.converge()
  assert.equal(here.systemd.started.length, 1)
})

test('a token of a former signing key in a vault that was adopted counts for nothing', async () => {
  await using all = await machine()
  const { here } = all
  here.state = { ...factoryState, phase: 'open' }
  const works = all.works()
  await open(works)
  await works.beforeClose()
  await rm(join(here.directory, 'signing-key.json'))
  here.state = { ...factoryState, phase: 'open', task: enrolling }
  await open(works)
  assert.equal(here.systemd.started.length, 1)
  here.state = { ...factoryState, phase: 'open' }
  await works.services.converge()
  assert.deepEqual(here.systemd.started, [`${web} active`, `${web} active`])
  assert.equal(await all.isGood(), true)
})

test('another vault in the place of the first is given its tokens before anything starts', async () => {
  await using all = await machine()
  const { here } = all
  here.state = { ...factoryState, phase: 'open' }
  const works = all.works()
  await open(works)
  await works.beforeClose()
  assert.equal(here.systemd.units.size, 0)
  await open(works)
  await works.beforeClose()
  here.state = { ...factoryState, phase: 'open', task: enrolling }
  await open(works, 'two')
  here.state = { ...factoryState, phase: 'open' }
  await works.services.converge()
  assert.deepEqual(here.systemd.started, Array(3).fill(`${web} active`))
})

test('a renewal that stops half-way is finished before the next start, and running services go on', async () => {
  await using all = await machine()
  const { here } = all
  here.state = { ...factoryState, phase: 'open' }
  const works = all.works()
  await open(works)
  const token = join(here.mount.path, 'holdfast', 'tokens', 'web')
  const before = await readFile(token, 'utf8')
  // The new signing key is there, and the tokens cannot be written: their directory is no directory.
  await rename(join(here.mount.path, 'holdfast'), join(here.mount.path, 'aside'))
  await writeFile(join(here.mount.path, 'holdfast'), '')
  const handler = works.handlers()['first-boot']
  assert.ok(handler)
  const order = { id: 'c', given: { renew: ['signing-keys'] } }
  await assert.rejects(
    async () => await handler.run(order as unknown as Parameters<typeof handler.run>[0]),
  )
  here.services = { ...here.services, late: { command: ['/bin/late'], directory: 'late' } }
  await works.services.converge()
  assert.deepEqual(here.systemd.started, [`${web} active`])
  assert.equal(here.systemd.units.get(web)?.active, 'active')
  await rm(join(here.mount.path, 'holdfast'))
  await rename(join(here.mount.path, 'aside'), join(here.mount.path, 'holdfast'))
  await works.services.converge()
  assert.notEqual(await readFile(token, 'utf8'), before)
  assert.deepEqual(here.systemd.started, [`${web} active`, `${unitName('late')} active`])
  assert.equal(await all.isGood('late'), true)
})
