import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { isFault, run, Secret } from '@holdfast/base'
import { createPins, type Policy, parsePolicy } from '@holdfast/seal'
import { adoptVault } from './adopt.ts'
import { addOwnerPassphrase, bindVault, regenVault } from './bind.ts'
import { type CreateOptions, createVault } from './create.ts'
import { readMetadata, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { type Bench, clevis, digest, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { maintainVault } from './maintain.ts'
import { passVault } from './pass.ts'
import { rehearseVault } from './rehearse.ts'
import { reportVault } from './report.ts'
import type { VaultDeps } from './state.ts'
import { unbindVault } from './unbind.ts'
import { unlockVault } from './unlock.ts'

const cheap = { kind: 'pbkdf2', iterations: 1000 } as const
const holderKeys = new Map<string, KeyObject>()

function holdersPolicy(threshold: number, names: readonly string[]): Policy {
  const person = names.map((name) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    holderKeys.set(name, privateKey)
    return { name, key: publicKey.export({ format: 'jwk' }) }
  })
  return parsePolicy('sss', { t: threshold, pins: { person } })
}

describe('a vault from creation to change', () => {
  let bench: Bench
  let servers: Tang[]
  let deps: VaultDeps
  const present = new Set<string>()
  const pins = createPins({
    holders: {
      answer: async ({ name }) => {
        const privateKey = present.has(name) ? holderKeys.get(name) : undefined
        return privateKey === undefined ? undefined : { privateKey }
      },
    },
  })
  before(async () => {
    bench = await makeBench(pins)
    deps = bench.deps
    servers = [await bench.tang(), await bench.tang(), await bench.tang()]
  })
  after(async () => await bench[Symbol.asyncDispose]())

  async function created(name: string, options: Partial<CreateOptions> = {}): Promise<VolumeRef> {
    const volume = await bench.image(name)
    using owner = Secret.copy(passphrase)
    const automatic = tangPolicy(servers, 2)
    await createVault(deps, volume, { automatic, owner, ownerDerivation: cheap, ...options })
    return volume
  }

  it('creates a vault whose two ways in are proven', async () => {
    const volume = await bench.image('create.img')
    for (const name of ['ann', 'bob', 'cem']) present.add(name)
    const recovery = holdersPolicy(2, ['ann', 'bob', 'cem'])
    const made = await createVault(deps, volume, { automatic: tangPolicy(servers, 2), recovery })
    assert.deepEqual(made.standing, {
      automatic: { ways: 1, proven: 1 },
      recovery: { ways: 1, proven: 1 },
      satisfied: true,
      problems: [],
    })
    assert.equal((await unlockVault(deps, volume)).keyslot, made.automatic.keyslot)
    const byHolders = await unlockVault(deps, volume, { purposes: ['recovery'] })
    assert.equal(byHolders.keyslot, made.recovery)
    assert.equal((await readMetadata(volume)).jsonCapacity, 65536 - 4096 - 1)
    present.clear()
  })

  it('keeps recovery unproven and says so while the holders are away', async () => {
    const volume = await bench.image('away.img')
    const options = {
      automatic: tangPolicy(servers, 2),
      recovery: holdersPolicy(1, ['dan', 'eve']),
    }
    const before = await digest(volume.device)
    await assert.rejects(createVault(deps, volume, options), (error) =>
      isFault(error, 'seal.proof_failed'),
    )
    assert.equal(await digest(volume.device), before)
    const made = await createVault(deps, volume, { ...options, unproven: true })
    assert.equal(made.standing.satisfied, false)
    assert.deepEqual(made.standing.problems, ['no recovery or owner way in has been proven'])
    present.add('eve')
    assert.equal((await rehearseVault(deps, volume)).standing.satisfied, true)
    present.clear()
  })

  it('creates a vault whose header lies apart', async () => {
    const { device } = await bench.image('apart.img')
    const volume = { device, header: `${bench.path}/apart.header` }
    const before = await digest(device)
    using owner = Secret.copy(passphrase)
    const options = { automatic: tangPolicy(servers, 2), owner, ownerDerivation: cheap }
    const made = await createVault(deps, volume, options)
    assert.equal(made.standing.satisfied, true)
    assert.equal((await unlockVault(deps, volume)).keyslot, 1)
    assert.equal(await digest(device), before)
  })

  it('refuses to format what holds something', async () => {
    const volume = await created('twice.img')
    const options = { automatic: tangPolicy(servers, 2), owner: Secret.copy(passphrase) }
    await assert.rejects(createVault(deps, volume, options), (error) =>
      isFault(error, 'vault.already_formatted'),
    )
    const filesystem = await bench.image('ext4.img')
    await run('mkfs.ext4', ['-q', filesystem.device])
    await assert.rejects(createVault(deps, filesystem, options), (error) =>
      isFault(error, 'vault.already_formatted'),
    )
  })

  it('lists losslessly and with the line that clevis prints', async () => {
    const volume = await created('list.img')
    const listing = await listVault(deps, volume)
    const [owner, bound] = listing.slots
    assert.deepEqual([owner?.purpose, owner?.owner], ['owner', 'holdfast'])
    assert.deepEqual(bound?.policy, {
      pin: 'sss',
      config: { t: 2, pins: { tang: servers.map(({ config }) => config) } },
    })
    const theirs = await clevis(['luks', 'list', '-d', volume.device])
    const withoutThumbprints = bound?.line?.replaceAll(/,"thp":"[^"]*"/g, '')
    assert.equal(withoutThumbprints, theirs.text.trim())
  })

  it('passes: audited, marked, and regenerated when the network is back', async () => {
    const volume = await created('pass.img')
    using shown = await passVault(deps, volume, 1)
    assert.equal(await testPassphrase(volume, shown, 1), true)
    const { uuid, slots } = await listVault(deps, volume)
    assert.equal(slots[1]?.regenerate, 'its passphrase was shown')
    const log = await readFile(join(deps.stateDirectory, 'vaults', uuid, 'audit.log'), 'utf8')
    assert.match(log, /"event":"pass","actor":"test".*"keyslot":1/)
    assert.equal(log.includes(shown.reveal().toString('utf8')), false)
    await servers[0]?.stop()
    const waiting = await maintainVault(deps, volume)
    assert.equal(waiting.waiting[0]?.fault?.code, 'seal.server_unreachable')
    await servers[0]?.start()
    const done = await maintainVault(deps, volume)
    assert.deepEqual(done.regenerated, [{ from: 1, to: 2 }])
    assert.equal(await testPassphrase(volume, shown), false)
    assert.deepEqual((await maintainVault(deps, volume)).regenerated, [])
  })

  it('reports a rotation with the key that vouches for it, and regen settles it', async () => {
    const volume = await created('report.img')
    const [first] = servers
    assert.ok(first)
    const before = await reportVault(deps, volume)
    assert.deepEqual(
      before[0]?.servers.map(({ state }) => state),
      ['current', 'current', 'current'],
    )
    await first.rotate()
    const [binding] = await reportVault(deps, volume)
    const [server] = binding?.servers ?? []
    assert.equal(binding?.rotated, true)
    assert.equal(server?.state, 'rotated')
    assert.equal(server?.vouchedBy, first.thp)
    assert.deepEqual([server?.gone.length, server?.fresh.length], [2, 2])
    const theirs = await clevis(['luks', 'report', '-q', '-d', volume.device, '-s', '1'])
    assert.equal(theirs.code, 1)
    const result = await regenVault(deps, volume, 1)
    const after = await reportVault(deps, volume)
    assert.equal(after[0]?.rotated, false)
    assert.equal(
      (await clevis(['luks', 'report', '-q', '-d', volume.device, '-s', `${result.keyslot}`])).code,
      0,
    )
    await first.refresh()
  })

  it('refuses to remove the last automatic way, the last recovery and a foreign slot', async () => {
    const volume = await created('unbind.img')
    await assert.rejects(unbindVault(deps, volume, 1), (error) =>
      isFault(error, 'vault.last_way_in'),
    )
    await assert.rejects(unbindVault(deps, volume, 0), (error) =>
      isFault(error, 'vault.last_way_in'),
    )
    await bindVault(deps, volume, tangPolicy(servers, 1), {})
    const result = await unbindVault(deps, volume, 1)
    assert.equal(result.removed?.keyslot, 1)
    const forced = await unbindVault(deps, volume, 2, { force: true })
    assert.equal(forced.removed?.keyslot, 2)
    await assert.rejects(unbindVault(deps, volume, 0, { force: true }), (error) =>
      isFault(error, 'vault.last_way_in'),
    )
    const foreign = await bench.volume({ name: 'foreign.img' })
    await assert.rejects(unbindVault(deps, foreign, 0, { force: true }), (error) =>
      isFault(error, 'vault.slot_foreign'),
    )
  })

  it('adds an owner passphrase under Argon2id', async () => {
    const volume = await created('owner.img')
    using added = Secret.copy('another passphrase')
    const costs = { kind: 'argon2id', iterations: 4, memoryKiB: 65536, parallel: 1 } as const
    const result = await addOwnerPassphrase(deps, volume, added, { derivation: costs })
    assert.equal(result.proof?.state, 'proven')
    const { keyslots } = await readMetadata(volume)
    assert.equal(keyslots.get(result.keyslot ?? -1)?.derivation, 'argon2id')
  })

  it('binds the servers that answer and completes the binding when the rest returns', async () => {
    const volume = await bench.volume({ name: 'degraded.img' })
    using secret = Secret.copy(passphrase)
    await servers[2]?.stop()
    const policy = tangPolicy(servers, 2)
    await assert.rejects(bindVault(deps, volume, policy, { passphrase: secret }), (error) =>
      isFault(error, 'seal.server_unreachable'),
    )
    const bound = await bindVault(deps, volume, policy, { passphrase: secret, reachable: true })
    assert.deepEqual(bound.missing, [servers[2]?.url])
    const { slots } = await listVault(deps, volume)
    assert.equal(slots[1]?.inspection?.children?.length, 2)
    assert.equal((await maintainVault(deps, volume)).waiting[0]?.why, 'complete')
    await servers[2]?.start()
    const done = await maintainVault(deps, volume)
    assert.deepEqual(done.completed, [{ from: 1, to: 2, missing: [] }])
    const [, full] = (await listVault(deps, volume)).slots
    assert.deepEqual([full?.inspection?.children?.length, full?.wanted], [3, undefined])
  })

  it('never binds below the threshold', async () => {
    const volume = await bench.volume({ name: 'below.img' })
    using secret = Secret.copy(passphrase)
    await servers[1]?.stop()
    await servers[2]?.stop()
    const options = { passphrase: secret, reachable: true }
    await assert.rejects(bindVault(deps, volume, tangPolicy(servers, 2), options), (error) =>
      isFault(error, 'seal.server_unreachable'),
    )
    await servers[1]?.start()
    await servers[2]?.start()
  })

  it('rehearses every way and records each proof with its time', async () => {
    const volume = await created('rehearse.img')
    await servers[1]?.stop()
    using owner = Secret.copy(passphrase)
    const result = await rehearseVault(deps, volume, { passphrase: owner })
    await servers[1]?.start()
    const bound = result.ways.find(({ keyslot }) => keyslot === 1)
    assert.equal(bound?.proof.state, 'proven')
    assert.equal(bound?.rehearsal?.margin, 0)
    assert.deepEqual(
      bound?.rehearsal?.children?.map(({ state }) => state),
      ['proven', 'failed', 'proven'],
    )
    assert.equal(result.standing.satisfied, true)
    const { slots } = await listVault(deps, volume)
    assert.match(slots[1]?.proof?.provenAt ?? '', /^\d{4}-\d\d-\d\dT/)
  })

  it('waits for a server with the passphrase prompt usable meanwhile', async () => {
    const volume = await created('wait.img')
    for (const server of servers) await server.stop()
    const typed = await unlockVault(deps, volume, {
      retry: true,
      passphrase: async () => Secret.copy(passphrase),
    })
    assert.equal(typed.by, 'passphrase')
    const retrying = Promise.withResolvers<void>()
    const waiting = unlockVault(deps, volume, {
      retry: true,
      signal: AbortSignal.timeout(240_000),
      onEvent: ({ state }) => state === 'retrying' && retrying.resolve(),
    })
    await retrying.promise
    for (const server of servers) await server.start()
    assert.equal((await waiting).keyslot, 1)
  })

  it('adopts a volume that clevis bound without touching a keyslot', async () => {
    const volume = await bench.volume({ name: 'adopt.img' })
    await clevisBind(volume, servers[0])
    const before = await readMetadata(volume)
    using secret = Secret.copy(passphrase)
    const adopted = await adoptVault(deps, volume, { passphrase: secret })
    assert.deepEqual([adopted.owner, adopted.marked], [0, [1]])
    const metadata = await readMetadata(volume)
    assert.deepEqual(metadata.json.keyslots, before.json.keyslots)
    assert.equal((await clevis(['luks', 'unlock', '-d', volume.device, '-t', '1'])).code, 0)
    assert.equal((await rehearseVault(deps, volume)).standing.satisfied, true)
  })
})

async function clevisBind(volume: VolumeRef, server: Tang | undefined): Promise<void> {
  const config = JSON.stringify(server?.config)
  const args = ['luks', 'bind', '-f', '-k', '-', '-d', volume.device, 'tang', config]
  const result = await clevis(args, { input: passphrase })
  assert.equal(result.code, 0, result.stderr)
}
