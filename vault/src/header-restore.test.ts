import assert from 'node:assert/strict'
import { copyFile, readdir, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Fault, isFault, run, Secret } from '@holdfast/base'
import { createPins, parsePolicy } from '@holdfast/seal'
import fc from 'fast-check'
import { killSlot, readUuid, removeToken, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { readHeaderImage } from './header.ts'
import { type BackupFacts, backupHeader, type HeaderBackup } from './header-backup.ts'
import { type Bench, bind, fileDigest, makeBench, passphrase } from './header-fixture.ts'
import { overwrite } from './header-io.ts'
import { type Evidence, judgeRestore } from './header-judge.ts'
import { restoreHeader, resumeRestore } from './header-restore.ts'

let bench: Bench
let volume: VolumeRef
let backup: HeaderBackup
let pristine = ''

before(async () => {
  bench = await makeBench()
  volume = await bench.volume('volume')
  const deps = bench.deps()
  await bind(volume, deps.pins, bench.holders.policy, 1, 'recovery')
  await bind(volume, deps.pins, parsePolicy('null', {}), 2, 'automatic')
  backup = await backupHeader(deps, volume, bench.holders.policy)
  pristine = join(bench.folder, 'pristine')
  await copyFile(volume.device, pristine)
})

after(async () => {
  await bench[Symbol.asyncDispose]()
})

/** The volume as it was backed up, then with so many bytes of its start destroyed. */
async function destroyed(length: number, byte = 0): Promise<void> {
  await copyFile(pristine, volume.device)
  if (length > 0) await overwrite(volume.device, 0, length, (_, n) => Buffer.alloc(n, byte))
}

async function refuses(code: string, options = {}, present = 3): Promise<Fault> {
  const before = await fileDigest(volume.device)
  let fault: Fault | undefined
  await assert.rejects(restoreHeader(bench.deps(present), volume, backup, options), (error) => {
    if (isFault(error)) fault = error
    return isFault(error, code)
  })
  assert.equal(await fileDigest(volume.device), before, 'the device was touched')
  assert.ok(fault)
  return fault
}

test('a header under zeros or noise comes back with two holders, and opens', async () => {
  for (const byte of [0, 0xd3]) {
    await destroyed(16 * 1024 * 1024, byte)
    const restored = await restoreHeader(bench.deps(2), volume, backup)
    assert.equal(restored.because, 'it is remembered at this path')
    assert.deepEqual(restored.proof, { keyslot: 2, by: 'binding' })
    assert.deepEqual(restored.resurrected, [])
    using header = await readHeaderImage(volume)
    assert.equal(header.facts.digest, backup.facts.digest)
    using secret = passphrase()
    assert.equal(await testPassphrase(volume, secret, 0), true)
    const theirs = await run('clevis', ['luks', 'pass', '-d', volume.device, '-s', '2'])
    using opened = Secret.take(theirs.stdout)
    assert.equal(await testPassphrase(volume, opened, 2), true)
    const left = await readdir(join(bench.state, 'vaults', backup.facts.uuid, 'restore'))
    assert.deepEqual(left, [])
  }
})

test('what a stopped write left of an image is destroyed', async () => {
  const folder = join(bench.state, 'vaults', backup.facts.uuid, 'restore')
  await writeFile(join(folder, '.tmp-undo.img-0123456789ab'), 'LUKS')
  assert.equal(await resumeRestore(bench.deps(), backup.facts.uuid), undefined)
  assert.deepEqual(await readdir(folder), [])
})

test('one holder is not enough, and nothing is touched', async () => {
  await destroyed(1_000_000)
  await refuses('seal.threshold_not_met', {}, 1)
})

test('a surviving second copy of the metadata tells whose header it was', async () => {
  await destroyed(4096)
  const other = { ...bench.deps(), stateDirectory: join(bench.folder, 'fresh-state') }
  const restored = await restoreHeader(other, volume, backup)
  assert.equal(restored.because, 'the header in place has its uuid')
})

test('without any trace or record the uuid must be named', async () => {
  await destroyed(16 * 1024 * 1024)
  const other = { ...bench.deps(), stateDirectory: join(bench.folder, 'no-state') }
  await assert.rejects(restoreHeader(other, volume, backup), { code: 'vault.backup_foreign' })
  const { uuid } = backup.facts
  const restored = await restoreHeader(other, volume, backup, { expected: uuid.toUpperCase() })
  assert.equal(restored.because, 'its uuid is the expected one')
})

test('a foreign header is refused, whatever is named', async () => {
  await destroyed(0)
  const mine = join(bench.folder, 'mine')
  await rename(volume.device, mine)
  const stranger = await bench.volume('stranger')
  await rename(stranger.device, volume.device)
  await refuses('vault.backup_foreign')
  await refuses('vault.backup_foreign', { expected: backup.facts.uuid })
  await refuses('vault.backup_foreign', { expected: await readUuid(volume) })
})

test('a device formatted again under the same uuid is refused: its volume key is another', async () => {
  await destroyed(0)
  const format = ['luksFormat', '-q', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000']
  const args = [...format, '--uuid', backup.facts.uuid, volume.device, '-']
  await run('cryptsetup', args, { input: 'another' })
  await refuses('vault.backup_foreign', { expected: backup.facts.uuid })
})

test('a backup from before the data was encrypted anew is refused, and nothing is left half done', async () => {
  const deps = bench.deps()
  const [ours, theirs] = [await bench.volume('before'), await bench.volume('after')]
  const uuid = await readUuid(ours)
  const old = await backupHeader(deps, ours, bench.holders.policy)
  await run('cryptsetup', ['luksUUID', '--batch-mode', '--uuid', uuid, theirs.device])
  await copyFile(theirs.device, ours.device)
  await backupHeader(deps, ours, bench.holders.policy, { reencrypted: true })
  await overwrite(ours.device, 0, 16 * 1024 * 1024, (_, n) => Buffer.alloc(n))
  const before = await fileDigest(ours.device)
  await assert.rejects(restoreHeader(deps, ours, old), { code: 'vault.backup_foreign' })
  assert.equal(await fileDigest(ours.device), before)
  assert.equal(await resumeRestore(deps, uuid), undefined)
})

test('a destroyed header on a device of another size needs the uuid; too small is refused', async () => {
  await destroyed(16 * 1024 * 1024)
  await truncate(volume.device, 48 * 1024 * 1024)
  await refuses('vault.backup_foreign')
  await truncate(volume.device, 12 * 1024 * 1024)
  await refuses('vault.header_size_mismatch', { expected: backup.facts.uuid })
})

test('a stale backup is refused until exactly what it resurrects is named', async () => {
  await destroyed(0)
  await killSlot(volume, 2)
  await removeToken(volume, 2)
  await backupHeader(bench.deps(), volume, bench.holders.policy)
  const resurrects = backup.facts.keyslots.filter((identity) => identity.startsWith('2:'))
  for (const length of [0, 16 * 1024 * 1024]) {
    await overwrite(volume.device, 0, length, (_, n) => Buffer.alloc(n))
    const fault = await refuses('vault.backup_stale')
    assert.deepEqual(fault.details, { resurrects })
    assert.match(fault.hint ?? '', new RegExp(resurrects[0] ?? 'none'))
    await refuses('vault.backup_stale', { acceptStale: [] })
    await refuses('vault.backup_stale', { acceptStale: [...resurrects, '0:0000000000000000'] })
  }
  const restored = await restoreHeader(bench.deps(), volume, backup, { acceptStale: resurrects })
  assert.deepEqual(restored.resurrected, resurrects)
  assert.equal(restored.proof?.keyslot, 2)
})

test('when no way in opens, the old bytes are back, unless the header is to be kept', async () => {
  await rm(join(bench.state, 'vaults', backup.facts.uuid, 'header.json'), { force: true })
  const bound = await bench.volume('unproven')
  const deps = bench.deps()
  await bind(bound, deps.pins, bench.holders.policy, 1, 'recovery')
  // The backup is for one holder alone; the recovery slot needs two, so one cannot prove it.
  const { policy } = bench.holders
  assert.equal(policy.kind, 'threshold')
  const single = { ...policy, threshold: 1 }
  const made = await backupHeader(deps, bound, single)
  await overwrite(bound.device, 0, 1_000_000, (_, n) => Buffer.alloc(n, 3))
  const before = await fileDigest(bound.device)
  await assert.rejects(restoreHeader(bench.deps(1), bound, made), {
    code: 'vault.restore_unproven',
  })
  assert.equal(await fileDigest(bound.device), before)
  assert.equal(await resumeRestore(deps, made.facts.uuid), undefined)
  const kept = await restoreHeader(bench.deps(1), bound, made, { unproven: 'keep' })
  assert.equal(kept.proof, undefined)
  await overwrite(bound.device, 0, 1_000_000, (_, n) => Buffer.alloc(n, 3))
  using secret = passphrase()
  const again = await restoreHeader(bench.deps(1), bound, made, { passphrase: secret })
  assert.deepEqual(again.proof, { keyslot: 0, by: 'passphrase' })
})

test('a sealed backup opens with nobody’s help only when its policy says so', async () => {
  await destroyed(16 * 1024 * 1024)
  const none = { ...bench.deps(), pins: createPins() }
  await assert.rejects(restoreHeader(none, volume, backup, { expected: backup.facts.uuid }), (e) =>
    isFault(e),
  )
})

const facts: BackupFacts = {
  v: 1,
  uuid: '11111111-1111-4111-8111-111111111111',
  seqid: 10,
  generation: 5,
  digest: 'a'.repeat(64),
  volumeKey: 'k1',
  keyslots: ['0:aa', '1:bb'],
  length: 16_777_216,
  dataOffset: 16_777_216,
  deviceSize: 33_554_432,
  time: '2027-01-15T08:00:00.000Z',
  policy: 'b'.repeat(64),
}

test('property: only the device’s own header is accepted, and no removed slot comes back unnamed', () => {
  const uuid = fc.constantFrom(facts.uuid, '22222222-2222-4222-8222-222222222222')
  const header = fc.record({
    uuid,
    seqid: fc.integer({ min: 5, max: 15 }),
    volumeKey: fc.constantFrom('k1', 'k2', ''),
    keyslots: fc.subarray(['0:aa', '1:bb', '1:cc', '2:dd']),
    digest: fc.constantFrom(facts.digest, 'c'.repeat(64)),
  })
  const known = header.chain((base) =>
    fc
      .record({
        generation: fc.integer({ min: 1, max: 9 }),
        device: fc.constantFrom('/dev/disk/by-id/a', '/dev/disk/by-id/b', '/dev/sdb1'),
      })
      .map((rest) => ({
        ...base,
        ...rest,
        ...{
          v: 1 as const,
          uuid: facts.uuid,
          deviceSize: facts.deviceSize,
          area: 1,
          updated: '',
          exports: [],
        },
      })),
  )
  const evidence: fc.Arbitrary<Evidence> = fc.record({
    device: fc.constantFrom('/dev/disk/by-id/a', '/dev/sdb1'),
    deviceSize: fc.constantFrom(facts.deviceSize, 1),
    live: fc.option(header, { nil: undefined }),
    remains: fc.array(uuid, { maxLength: 2 }),
    known: fc.option(known, { nil: undefined }),
    others: fc.subarray(['22222222-2222-4222-8222-222222222222']),
    fate: fc.constantFrom('none' as const, 'wiping' as const, 'destroyed' as const),
  })
  const permission = fc.record(
    { expected: uuid, acceptStale: fc.subarray(['0:aa', '1:bb']) },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(evidence, permission, (found, allowed) => {
      let accepted = true
      try {
        judgeRestore(facts, found, allowed)
      } catch (error) {
        assert.ok(isFault(error), String(error))
        accepted = false
      }
      if (!accepted) return
      assert.equal(found.fate, 'none')
      assert.ok(found.live === undefined || found.live.uuid === facts.uuid)
      assert.ok(found.live === undefined || ['k1', ''].includes(found.live.volumeKey))
      assert.ok(found.known === undefined || ['k1', ''].includes(found.known.volumeKey))
      assert.ok(allowed.expected === undefined || allowed.expected === facts.uuid)
      const named =
        found.live !== undefined ||
        allowed.expected !== undefined ||
        found.remains.includes(facts.uuid) ||
        (found.known?.device === found.device && found.device !== '/dev/sdb1')
      assert.ok(named, 'accepted without evidence')
      const newest = found.live ?? found.known
      const back = facts.keyslots.filter((slot) => newest && !newest.keyslots.includes(slot))
      assert.ok(back.every((slot) => allowed.acceptStale?.includes(slot) === true))
    }),
    { numRuns: 2000 },
  )
})
