import assert from 'node:assert/strict'
import { copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { run, Secret } from '@holdfast/base'
import { parsePolicy, seal } from '@holdfast/seal'
import { killSlot, readUuid, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { readHeaderImage } from './header.ts'
import {
  backupDirectory,
  backupHeader,
  listBackups,
  openBackup,
  readBackup,
} from './header-backup.ts'
import { type Bench, bind, makeBench, makeHolders, passphrase } from './header-fixture.ts'
import { headerRecord } from './header-record.ts'
import { destroyStaleBackups, keepBackups, staleBackups } from './header-stale.ts'
import { altered } from './lab.ts'
import { unlockVault } from './unlock.ts'

let bench: Bench
let count = 0

before(async () => {
  bench = await makeBench()
})

after(async () => {
  await bench[Symbol.asyncDispose]()
})

/** A volume of its own for each test: owner, recovery and automatic keyslots 0, 1 and 2. */
async function freshVolume(): Promise<{ volume: VolumeRef; uuid: string }> {
  count += 1
  const volume = await bench.volume(`volume-${count}`)
  const { pins } = bench.deps()
  await bind(volume, pins, bench.holders.policy, 1, 'recovery')
  await bind(volume, pins, parsePolicy('null', {}), 2, 'automatic')
  return { volume, uuid: await readUuid(volume) }
}

test('a backup opens for two holders, not for one, and holds the header', async () => {
  const { volume } = await freshVolume()
  const backup = await backupHeader(bench.deps(), volume, bench.holders.policy)
  using header = await readHeaderImage(volume)
  using opened = await openBackup(backup, bench.holders.pins(2))
  assert.ok(opened.image.equals(header.image))
  await assert.rejects(openBackup(backup, bench.holders.pins(1)), {
    code: 'seal.threshold_not_met',
  })
  const sealed = await readFile(backup.path, 'utf8')
  assert.ok(sealed.length < 1_200_000, `${sealed.length} characters`)
  using other = passphrase()
  assert.equal(await testPassphrase(volume, other, 0), true)
})

test('the same header under the same policy is sealed once, another policy again', async () => {
  const { volume, uuid } = await freshVolume()
  const first = await backupHeader(bench.deps(), volume, bench.holders.policy)
  assert.equal((await backupHeader(bench.deps(), volume, bench.holders.policy)).path, first.path)
  const others = makeHolders()
  const second = await backupHeader(bench.deps(), volume, others.policy)
  assert.equal(second.facts.generation, first.facts.generation + 1)
  assert.equal((await listBackups(bench.state, uuid)).backups.length, 2)
  assert.equal((await headerRecord(bench.state, uuid).read())?.generation, second.facts.generation)
})

test('after a rekey the backups that would resurrect the old slot are named and destroyed', async () => {
  const { volume, uuid } = await freshVolume()
  const deps = bench.deps()
  const old = await backupHeader(deps, volume, bench.holders.policy)
  assert.deepEqual(await staleBackups(deps, volume), [])
  await bind(volume, deps.pins, parsePolicy('null', {}), 5, 'automatic')
  await killSlot(volume, 2)
  const stale = await staleBackups(deps, volume)
  assert.deepEqual(
    stale.map(({ path, resurrects }) => [path, resurrects.map((identity) => identity[0])]),
    [[old.path, ['2']]],
  )
  await assert.rejects(destroyStaleBackups(deps, volume), { code: 'vault.backup_absent' })
  assert.equal((await readBackup(old.path)).path, old.path)
  await keepBackups(deps, bench.holders.policy)({ volume })
  assert.deepEqual(await staleBackups(deps, volume), [])
  const { backups, broken } = await listBackups(bench.state, uuid)
  assert.equal(backups.length, 1)
  assert.deepEqual(broken, [])
  assert.equal((await readdir(backupDirectory(bench.state, uuid))).length, 2)
})

test('a backup whose slots all still exist is superseded, not stale', async () => {
  const { volume, uuid } = await freshVolume()
  const deps = bench.deps()
  await backupHeader(deps, volume, bench.holders.policy)
  await bind(volume, deps.pins, parsePolicy('null', {}), 4, 'automatic')
  await keepBackups(deps, bench.holders.policy)({ volume })
  assert.equal((await listBackups(bench.state, uuid)).backups.length, 2)
})

test('altered, missing and foreign files are listed as broken and never opened', async () => {
  const { volume, uuid } = await freshVolume()
  const deps = bench.deps()
  const { path } = await backupHeader(deps, volume, bench.holders.policy)
  const plain = path.replace('.jwe', '.json')
  const [sealed, facts] = [await readFile(path, 'utf8'), await readFile(plain, 'utf8')]

  await writeFile(path, altered(sealed))
  await assert.rejects(readBackup(path), { code: 'vault.backup_malformed' })
  await writeFile(path, sealed)

  await writeFile(plain, facts.replace('"v":1', '"v":2'))
  await assert.rejects(readBackup(path), { code: 'vault.backup_malformed' })
  await writeFile(plain, '{')
  await assert.rejects(readBackup(path), { code: 'vault.backup_malformed' })

  await rm(plain)
  await assert.rejects(readBackup(path), { code: 'vault.backup_absent' })
  const { backups, broken } = await listBackups(bench.state, uuid)
  assert.deepEqual([backups.length, broken.length], [0, 1])
  assert.equal((await staleBackups(deps, volume)).length, 1)
})

test('another volume under the same uuid is neither opened nor remembered, unless on purpose', async () => {
  const { volume, uuid } = await freshVolume()
  const [deps, { policy }] = [bench.deps(), bench.holders]
  await backupHeader(deps, volume, policy)
  assert.equal((await unlockVault(deps, volume)).keyslot, 2)

  const theirs = await bench.volume(`theirs-${count}`)
  await run('cryptsetup', ['luksUUID', '--batch-mode', '--uuid', uuid, theirs.device])
  await bind(theirs, deps.pins, parsePolicy('null', {}), 2, 'automatic')
  const replaced = { code: 'vault.volume_replaced' }
  await assert.rejects(unlockVault(deps, theirs), replaced)
  await assert.rejects(backupHeader(deps, theirs, policy), replaced)
  assert.equal((await unlockVault(deps, volume)).keyslot, 2)

  await backupHeader(deps, theirs, policy, { reencrypted: true })
  assert.equal((await unlockVault(deps, theirs)).keyslot, 2)
  await assert.rejects(unlockVault(deps, volume), replaced)
})

test('plain facts that differ from the sealed ones are found when it is opened', async () => {
  const { volume } = await freshVolume()
  const backup = await backupHeader(bench.deps(), volume, bench.holders.policy)
  const plain = backup.path.replace('.jwe', '.json')
  const lie = JSON.parse(await readFile(plain, 'utf8'))
  lie.facts.generation = 900
  await writeFile(plain, JSON.stringify(lie))
  const read = await readBackup(backup.path)
  assert.equal(read.facts.generation, 900)
  await assert.rejects(openBackup(read, bench.holders.pins(3)), { code: 'vault.backup_malformed' })
})

test('a sealed secret that is no header is refused after opening', async () => {
  const { volume } = await freshVolume()
  const backup = await backupHeader(bench.deps(), volume, bench.holders.policy)
  const path = join(bench.folder, 'other.jwe')
  const { pins } = bench.deps()
  using nothing = Secret.copy('not a header')
  await writeFile(path, await seal(pins, bench.holders.policy, nothing))
  await copyFile(backup.path.replace('.jwe', '.json'), path.replace('.jwe', '.json'))
  await assert.rejects(openBackup({ ...backup, path }, pins), { code: 'vault.backup_malformed' })
})

test('a header with more keyslots than can be sealed is refused and nothing is written', async () => {
  const { volume, uuid } = await freshVolume()
  const deps = bench.deps()
  for (let keyslot = 3; keyslot < 13; keyslot += 1) {
    await bind(volume, deps.pins, parsePolicy('null', {}), keyslot, 'automatic')
  }
  await assert.rejects(backupHeader(deps, volume, bench.holders.policy), {
    code: 'vault.backup_failed',
  })
  assert.deepEqual(await listBackups(bench.state, uuid), { backups: [], broken: [] })
  await killSlot(volume, 12)
  assert.equal((await backupHeader(deps, volume, bench.holders.policy)).facts.keyslots.length, 12)
})
