import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault, type Secret } from '@holdfast/base'
import { parsePolicy } from '@holdfast/seal'
import fc from 'fast-check'
import { headerRestore, luksType, readUuid, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { readHeaderImage } from './header.ts'
import { backupHeader, type HeaderBackup, listBackups } from './header-backup.ts'
import { type Bench, bind, fileDigest, makeBench, passphrase } from './header-fixture.ts'
import { overwrite, readRegion } from './header-io.ts'
import { noteExport } from './header-record.ts'
import { restoreHeader } from './header-restore.ts'
import { exportRequest } from './offline.ts'
import {
  describePanic,
  executePanic,
  type PreparedPanic,
  preparePanic,
  resumePanic,
} from './panic.ts'
import { type PanicFacts, planDigest, planPanic } from './panic-plan.ts'
import { panicDirectory, panicJournal, unfinishedPanics } from './panic-record.ts'
import { fateOf, readReceipts } from './receipt.ts'
import { vaultDirectory } from './state.ts'
import { filesBelow } from './wipe.ts'

let bench: Bench
let count = 0

before(async () => {
  bench = await makeBench()
})

after(async () => {
  await bench[Symbol.asyncDispose]()
})

interface Subject {
  volume: VolumeRef
  uuid: string
  backup: HeaderBackup
}

async function subject(): Promise<Subject> {
  count += 1
  const volume = await bench.volume(`subject-${count}`)
  const { pins } = bench.deps()
  await bind(volume, pins, bench.holders.policy, 1, 'recovery')
  await bind(volume, pins, parsePolicy('null', {}), 2, 'automatic')
  const backup = await backupHeader(bench.deps(), volume, bench.holders.policy)
  return { volume, uuid: await readUuid(volume), backup }
}

async function wipe(volume: VolumeRef, uuid: string, prepared: PreparedPanic) {
  return await executePanic(bench.deps(), volume, uuid, prepared.code)
}

test('level 1 keeps every key and says that nothing is mapped here', async () => {
  const { volume, uuid } = await subject()
  const before = await fileDigest(volume.device)
  const prepared = await preparePanic(bench.deps(), volume, 1)
  assert.deepEqual(prepared.plan.destroys, [])
  assert.match(prepared.plan.notes.join(), /nothing is mapped|not mapped/)
  const { receipt } = await wipe(volume, uuid, prepared)
  assert.deepEqual(
    receipt.steps.map(({ step, result }) => [step.do, result]),
    [['verify', 'done']],
  )
  assert.equal(await fileDigest(volume.device), before)
  assert.equal(await fateOf(bench.state, uuid), 'none')
})

test('level 2 leaves only noise, and two holders bring every way in back', async () => {
  const { volume, uuid, backup } = await subject()
  const area = backup.facts.dataOffset
  const data = (await readFile(volume.device)).subarray(area)
  const prepared = await preparePanic(bench.deps(), volume, 2)
  assert.match(prepared.plan.wayBack ?? '', /2 of 3: alice, bob, carol/)
  const { receipt } = await wipe(volume, uuid, prepared)
  assert.deepEqual(
    receipt.steps.map(({ step }) => step.do),
    ['erase_keyslots', 'overwrite_header', 'destroy_images', 'verify'],
  )
  assert.equal(await luksType(volume), undefined)
  const start = await readRegion(volume.device, area)
  // All six bytes of either magic: four of them are in 16 MiB of noise once in 256 times.
  for (const magic of ['LUKS\xba\xbe', 'SKUL\xba\xbe'])
    assert.equal(start.indexOf(magic, 0, 'latin1'), -1)
  using secret = passphrase()
  await assert.rejects(testPassphrase(volume, secret), isFault)
  assert.ok((await readFile(volume.device)).subarray(area).equals(data), 'the data was touched')
  const restored = await restoreHeader(bench.deps(2), volume, backup)
  assert.deepEqual(restored.resurrected, [])
  assert.equal(await testPassphrase(volume, secret, 0), true)
})

test('level 2 without a backup is refused, seals one first, or is acknowledged', async () => {
  const { volume, uuid, backup } = await subject()
  await bind(volume, bench.deps().pins, parsePolicy('null', {}), 4, 'automatic')
  await assert.rejects(preparePanic(bench.deps(), volume, 2), { code: 'vault.irreversible' })
  const meant = await preparePanic(bench.deps(), volume, 2, { acknowledgeIrreversible: true })
  assert.equal(meant.plan.wayBack, undefined)
  const { policy } = bench.holders
  const prepared = await preparePanic(bench.deps(), volume, 2, { policy })
  assert.notEqual(prepared.plan.wayBack, undefined)
  await wipe(volume, uuid, prepared)
  await assert.rejects(restoreHeader(bench.deps(), volume, backup), { code: 'vault.backup_stale' })
  const newest = (await listBackups(bench.state, uuid)).backups.at(-1)
  assert.ok(newest)
  assert.equal((await restoreHeader(bench.deps(), volume, newest)).uuid, uuid)
})

test('after level 3 nothing that Holdfast made opens the volume', async () => {
  const { volume, uuid, backup } = await subject()
  const deps = bench.deps()
  const state = vaultDirectory(bench.state, uuid)
  // A restore that a power cut left behind: its images open the volume without any holder.
  using header = await readHeaderImage(volume)
  await mkdir(join(state, 'restore'), { recursive: true })
  await writeFile(join(state, 'restore', 'undo.img'), header.image.reveal())
  await writeFile(join(state, 'elsewhere.bin'), header.image.reveal().subarray(0, 200_000))
  await noteExport(bench.state, uuid, 'a header backup on a memory stick', 0)
  const technician = generateKeyPairSync('x25519').publicKey
  const { digest } = await exportRequest(deps, volume, technician)
  const outside = join(bench.folder, 'outside.jwe')
  await copyFile(backup.path, outside)
  await copyFile(backup.path.replace('.jwe', '.json'), outside.replace('.jwe', '.json'))
  const before = await filesBelow(state)

  const prepared = await preparePanic(deps, volume, 3)
  assert.equal(prepared.plan.wayBack, undefined)
  const { receipt } = await wipe(volume, uuid, prepared)
  assert.ok(before.length > 4)
  assert.deepEqual(
    (await filesBelow(state)).map((path) => path.slice(state.length + 1)),
    ['audit.log', 'lock'],
  )
  assert.ok(receipt.unreachable.some(({ what }) => what.includes('memory stick')))
  assert.ok(receipt.unreachable.some(({ what }) => what.includes(digest)))
  assert.ok(receipt.unreachable.some(({ what }) => what.includes('other programs')))
  assert.ok(receipt.unreachable.some(({ what }) => what.includes('copied out')))

  for (const path of await filesBelow(bench.state)) await opensNothing(path)
  using secret = passphrase()
  await assert.rejects(testPassphrase(volume, secret), isFault)
  // Not even the copy that was carried out comes back through Holdfast here.
  await assert.rejects(restoreHeader(deps, volume, { ...backup, path: outside }), {
    code: 'vault.destroyed',
  })
  assert.equal(await fateOf(bench.state, uuid), 'destroyed')

  /** Puts whatever a file holds onto a copy of the disk and tries every key there is. */
  async function opensNothing(path: string): Promise<void> {
    const device = join(bench.folder, 'attempt.img')
    await copyFile(volume.device, device)
    const restored = await headerRestore({ device }, path).then(
      () => true,
      (error) => {
        assert.ok(isFault(error), String(error))
        return false
      },
    )
    assert.equal(restored, false, `${path} is a header`)
    await rm(device)
  }
})

test('a detached header is destroyed where it is and the data is left alone', async () => {
  const volume = await bench.volume('detached', { detached: true })
  const uuid = await readUuid(volume)
  const backup = await backupHeader(bench.deps(), volume, bench.holders.policy)
  const data = await fileDigest(volume.device)
  await wipe(volume, uuid, await preparePanic(bench.deps(), volume, 2))
  assert.equal(await luksType(volume), undefined)
  assert.equal(await fileDigest(volume.device), data)
  using secret: Secret = passphrase()
  await restoreHeader(bench.deps(), volume, backup, { passphrase: secret })
  assert.equal(await testPassphrase(volume, secret, 0), true)
})

test('the code belongs to one plan, once, for a while', async () => {
  const { volume, uuid } = await subject()
  const deps = bench.deps()
  const before = await fileDigest(volume.device)
  await assert.rejects(executePanic(deps, volume, uuid, 'AAAA-AAAA'), {
    code: 'vault.confirmation_wrong',
  })
  const first = await preparePanic(deps, volume, 3)
  const second = await preparePanic(deps, volume, 3)
  assert.notEqual(first.code, second.code)
  await assert.rejects(wipe(volume, uuid, first), { code: 'vault.confirmation_wrong' })
  const late = { ...deps, clock: { now: () => second.expires, sleep: async () => undefined } }
  await assert.rejects(executePanic(late, volume, uuid, second.code), {
    code: 'vault.confirmation_expired',
  })
  assert.equal(await fileDigest(volume.device), before)
  await bind(volume, deps.pins, parsePolicy('null', {}), 6, 'automatic')
  await assert.rejects(wipe(volume, uuid, second), { code: 'vault.changed_meanwhile' })
  const third = await preparePanic(deps, volume, 2, { acknowledgeIrreversible: true })
  await wipe(volume, uuid, { ...third, code: ` ${third.code.toLowerCase()} ` })
  await assert.rejects(wipe(volume, uuid, third), { code: 'vault.confirmation_wrong' })
})

test('a step that fails does not keep the others, and the receipt waits for it', async () => {
  const { volume, uuid, backup } = await subject()
  const deps = bench.deps()
  const prepared = await preparePanic(deps, volume, 3)
  const journal = panicJournal(bench.state, uuid)
  // The power fails right after the journal is written, and the disk is pulled.
  await executeUntilJournal(volume, uuid, prepared)
  await rm(volume.device)
  await assert.rejects(resumePanic(deps, uuid), { code: 'vault.wipe_unfinished' })
  assert.deepEqual((await listBackups(bench.state, uuid)).backups, [])
  assert.equal((await readReceipts(bench.state, uuid)).length, 0)
  await assert.rejects(restoreHeader(deps, { device: volume.device }, backup), isFault)
  assert.deepEqual(
    (await unfinishedPanics(bench.state)).map((wipe) => [wipe.uuid, wipe.device]),
    [[uuid, volume.device]],
  )
  const receipt = await resumePanic(deps, uuid, true)
  assert.ok(receipt?.receipt.unreachable.some(({ what }) => what.includes('overwrite_header')))
  assert.equal(await journal.read(), undefined)
})

/** Leaves what a crash leaves right after the journal became durable. */
async function executeUntilJournal(volume: VolumeRef, uuid: string, prepared: PreparedPanic) {
  const { plan } = prepared
  await panicJournal(bench.state, uuid).write({
    ...{ v: 1, id: 'one', uuid, device: volume.device, level: plan.level, plan: planDigest(plan) },
    ...{ steps: [...plan.steps], done: [], survives: [], unreachable: [] },
    started: '2027-01-15T08:00:00.000Z',
    actor: 'test',
  })
}

test('while a wipe is unfinished nothing is restored and no other is prepared', async () => {
  const { volume, uuid, backup } = await subject()
  const deps = bench.deps()
  const prepared = await preparePanic(deps, volume, 2)
  await executeUntilJournal(volume, uuid, prepared)
  await assert.rejects(restoreHeader(deps, volume, backup), { code: 'vault.wipe_unfinished' })
  await assert.rejects(preparePanic(deps, volume, 1), { code: 'vault.wipe_unfinished' })
  await resumePanic(deps, uuid)
  assert.equal((await restoreHeader(deps, volume, backup)).uuid, uuid)
})

test('a wipe after the header is gone takes its extent from the records', async () => {
  const { volume, uuid, backup } = await subject()
  await overwrite(volume.device, 0, 1_000_000, (_, n) => Buffer.alloc(n))
  await assert.rejects(describePanic(bench.deps(), volume, 2), { code: 'vault.not_luks' })
  const plan = await describePanic(bench.deps(), volume, 2, uuid)
  assert.match(plan.wayBack ?? '', /^restore /)
  await wipe(volume, uuid, await preparePanic(bench.deps(), volume, 2, { uuid }))
  assert.equal((await restoreHeader(bench.deps(), volume, backup)).uuid, uuid)
})

test('damaged records, backups and receipts do not keep a wipe from its work', async () => {
  const { volume, uuid, backup } = await subject()
  await wipe(volume, uuid, await preparePanic(bench.deps(), volume, 1))
  const [first] = await readReceipts(bench.state, uuid)
  assert.ok(first)
  await writeFile(first.path, '{"v":1')
  await writeFile(join(vaultDirectory(bench.state, uuid), 'header.json'), 'x')
  await writeFile(join(vaultDirectory(bench.state, uuid), 'audit.log'), '{"event":\n\u0000')
  await writeFile(backup.path, 'x')
  await assert.rejects(preparePanic(bench.deps(), volume, 2), { code: 'vault.irreversible' })
  const { receipt } = await wipe(volume, uuid, await preparePanic(bench.deps(), volume, 3))
  assert.equal(receipt.sequence, 2)
  assert.ok(receipt.steps.every(({ result }) => result !== 'failed'))
  assert.equal(await luksType(volume), undefined)
  assert.deepEqual(await listBackups(bench.state, uuid), { backups: [], broken: [] })
  await assert.rejects(readReceipts(bench.state, uuid), { code: 'vault.receipt_malformed' })
  await assert.rejects(restoreHeader(bench.deps(), volume, backup), {
    code: 'vault.receipt_malformed',
  })
})

test('receipts are linked: one altered, removed or swapped is noticed', async () => {
  const { volume, uuid } = await subject()
  for (const level of [1, 1, 2] as const) {
    await wipe(volume, uuid, await preparePanic(bench.deps(), volume, level))
  }
  const receipts = await readReceipts(bench.state, uuid)
  assert.deepEqual(
    receipts.map(({ receipt }) => [receipt.sequence, receipt.level]),
    [
      [1, 1],
      [2, 1],
      [3, 2],
    ],
  )
  assert.equal(receipts[2]?.receipt.previous, receipts[1]?.digest)
  const [first, second] = receipts.map(({ path }) => path)
  assert.ok(first && second)
  const text = await readFile(first, 'utf8')
  await writeFile(first, text.replace('"actor":"unknown"', '"actor":"nobody"'))
  await assert.rejects(readReceipts(bench.state, uuid), { code: 'vault.receipt_malformed' })
  await writeFile(first, text)
  await rm(second)
  await assert.rejects(readReceipts(bench.state, uuid), { code: 'vault.receipt_malformed' })
  const files = await readdir(panicDirectory(bench.state, uuid))
  assert.deepEqual(files.sort(), ['receipt-000001.json', 'receipt-000003.json'])
})

test('property: levels contain each other, keys go before copies, and level 1 destroys nothing', () => {
  const names = fc.array(fc.string({ minLength: 1 }), { maxLength: 3 })
  const facts: fc.Arbitrary<PanicFacts> = fc.record({
    uuid: fc.uuid(),
    device: fc.constant('/dev/a'),
    deviceMapper: fc.boolean(),
    mappings: names,
    keyslots: fc.option(fc.nat({ max: 32 }), { nil: undefined }),
    area: fc.integer({ min: 1, max: 2 ** 24 }),
    fresh: fc.option(fc.record({ name: fc.string(), policy: fc.string() }), { nil: undefined }),
    backups: names,
    images: names,
    exports: fc.array(fc.record({ what: fc.string(), time: fc.string() }), { maxLength: 3 }),
  })
  fc.assert(
    fc.property(facts, (found) => {
      const [one, two, three] = ([1, 2, 3] as const).map((level) => planPanic(level, found))
      assert.ok(one && two && three)
      const kinds = (plan: typeof one) => plan.steps.map((step) => step.do)
      assert.ok(kinds(one).every((kind) => kind === 'close_mapping' || kind === 'verify'))
      assert.deepEqual(one.destroys, [])
      assert.ok(two.destroys.every((what) => three.destroys.includes(what)))
      assert.ok(kinds(two).every((kind) => kinds(three).includes(kind)))
      for (const plan of [one, two, three]) assert.equal(kinds(plan).at(-1), 'verify')
      assert.ok(!kinds(two).includes('destroy_backups'))
      const order = kinds(three)
      assert.ok(order.indexOf('overwrite_header') < order.indexOf('destroy_backups'))
      assert.ok(order.indexOf('destroy_backups') < order.indexOf('destroy_records'))
      assert.equal(three.wayBack, undefined)
      assert.equal(two.wayBack === undefined, found.fresh === undefined)
      for (const { what } of found.exports) {
        assert.ok(three.unreachable.some((copy) => copy.what === what))
      }
      assert.equal(planDigest(two), planDigest(planPanic(2, structuredClone(found))))
      assert.notEqual(planDigest(two), planDigest(three))
    }),
    { numRuns: 500 },
  )
})
