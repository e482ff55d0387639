import assert from 'node:assert/strict'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { asyncProperty, assert as check, integer } from 'fast-check'
import { backupFile, verifyBackup } from './backup-check.ts'
import { bundleOf, chunked, oldBundleOf } from './backup-fixture.ts'
import { Coordinator } from './coordinator.ts'
import { answerAll, claimed, depsOf, person, place, running } from './coordinator-fixture.ts'
import { dismiss, openDismissal } from './dismissal.ts'
import { createInvite, usableInvite } from './invites.ts'
import { openRecovery } from './recovery.ts'
import { restoreBackup } from './restore.ts'
import { openRollback } from './rollback.ts'
import { openStore } from './store.ts'
import { createToken, putUser, tokenCaller } from './users.ts'
import { listWays, rotateDataKey } from './way-changes.ts'

const people = ['alice', 'bob', 'carol'].map(person)
const [alice, bob, carol] = people
assert.ok(alice && bob && carol)

test('a backup is checked offline, without secrets, and holds none in the clear', async () => {
  await using here = await place()
  await using coordinator = await running(here.options, people, 2)
  const bundle = await bundleOf(coordinator)
  const pinned = coordinator.identity.digest
  const report = await verifyBackup(chunked(bundle), { pinned })
  assert.deepEqual(
    [report.cluster, report.generation, report.holders?.threshold, report.audit.intact],
    [coordinator.header?.cluster, 2, 2, true],
  )
  assert.deepEqual(report.ways.map(({ kind }) => kind).sort(), ['holders', 'host-key'])
  assert.equal(bundle.includes('PRIVATE KEY'), false)
  for (const name of ['authority-key', 'identity-key'] as const) {
    using secret = await coordinator.secret(name)
    const body = secret.reveal().toString().split('\n')[1] ?? ''
    assert.equal(bundle.includes(body), false)
  }
  await assert.rejects(verifyBackup(chunked(bundle), { pinned: 'A'.repeat(43) }), {
    code: 'coordinator.backup_foreign',
  })
})

test('any changed byte, a missing line and a foreign signature are found', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const bundle = await bundleOf(coordinator)
  const codes = ['backup_damaged', 'backup_foreign', 'backup_incomplete', 'header_invalid']
  const refused = async (bytes: Uint8Array | string) =>
    await assert.rejects(
      verifyBackup(chunked(bytes), { pinned: coordinator.identity.digest }),
      ({ code }: { code: string }) => codes.includes(code.replace('coordinator.', '')),
    )
  for (const whole of [bundle, await oldBundleOf(coordinator)]) {
    await check(
      asyncProperty(
        integer({ min: 0, max: whole.length - 1 }),
        integer({ min: 1, max: 255 }),
        async (at, by) => {
          const other = Buffer.from(whole)
          other.writeUInt8(other.readUInt8(at) ^ by, at)
          await refused(other)
        },
      ),
      { numRuns: 200 },
    )
    await refused(whole.subarray(0, whole.length / 2))
    await refused(whole.subarray(0, whole.lastIndexOf('\n', -2) + 1))
  }
  await refused('')
  await refused('{}\n')
  const later = bundle.toString().replace('"version":2', '"version":3')
  await assert.rejects(verifyBackup(chunked(later)), /of version 3, a later one/)
})

test('a bundle of version 1 is verified and restored, and its holders open it', async () => {
  await using old = await place()
  const first = await running(old.options, people, 2)
  const { digest: pinned } = first.identity
  const bundle = await oldBundleOf(first)
  const [before, now] = [bundle, await bundleOf(first)].map((bytes) => chunked(bytes))
  assert.ok(before && now)
  const { digest: one, at: _earlier, ...report } = await verifyBackup(before, { pinned })
  const { digest: other, at: _later, bundle: _own, ...same } = await verifyBackup(now, { pinned })
  assert.notEqual(one, other)
  assert.deepEqual(report, same, 'both tell the same')
  await first[Symbol.asyncDispose]()
  await rm(join(old.directory, 'host.key'))
  await using here = await place()
  await restoreBackup(before, { ...here.options, pinned })
  await using coordinator = await Coordinator.start(here.options)
  const ceremony = await openRecovery(coordinator, depsOf(coordinator), 'test')
  await answerAll(coordinator, ceremony, [bob, carol])
  assert.deepEqual([coordinator.state, coordinator.identity.digest], ['running', pinned])
})

test('restored on a new host it is in recovery, and its holders bring the pinned identity back', async () => {
  await using old = await place()
  const first = await running(old.options, people, 2)
  const pin = first.identity.digest
  const { cluster } = first.header ?? {}
  const bundle = await bundleOf(first)
  await first[Symbol.asyncDispose]()
  await rm(join(old.directory, 'host.key')) // that host is lost

  await using here = await place()
  await restoreBackup(chunked(bundle), { ...here.options, pinned: pin })
  await assert.rejects(restoreBackup(chunked(bundle), here.options), {
    code: 'coordinator.not_empty',
  })
  const coordinator = await Coordinator.start(here.options)
  assert.deepEqual([coordinator.state, coordinator.reason], ['recovery', 'key_missing'])
  assert.equal(coordinator.header?.cluster, cluster)
  assert.notEqual(coordinator.identity.digest, pin)
  const trusted: string[] = []
  coordinator.onTrust(() => trusted.push(coordinator.identity.digest))
  const ceremony = await openRecovery(coordinator, depsOf(coordinator), 'test')
  await answerAll(coordinator, ceremony, [bob, carol])
  assert.deepEqual([coordinator.state, coordinator.identity.digest], ['running', pin])
  assert.deepEqual(trusted, [pin])
  await coordinator[Symbol.asyncDispose]()
  await using again = await Coordinator.start(here.options)
  assert.deepEqual([again.reason, again.identity.digest], ['key_missing', pin])
})

test('a state that was restored and never opened is not given up: nobody could sign that', async () => {
  await using old = await place()
  const first = await running(old.options, people, 2)
  const bundle = await bundleOf(first)
  await first[Symbol.asyncDispose]()
  await rm(join(old.directory, 'host.key'))
  await using here = await place()
  await restoreBackup(chunked(bundle), here.options)
  await using coordinator = await Coordinator.start(here.options)
  const refused = { code: 'coordinator.identity_temporary' }
  await assert.rejects(openDismissal(coordinator, depsOf(coordinator), 'test'), refused)
  await assert.rejects(dismiss(coordinator, 'console', []), refused)
  const ceremony = await openRecovery(coordinator, depsOf(coordinator), 'test')
  await answerAll(coordinator, ceremony, [bob, carol])
  assert.equal(coordinator.state, 'running', 'nothing of it was touched')
  await dismiss(coordinator, 'console', [])
  assert.equal(coordinator.state, 'uninitialised')
  const [archive] = await readdir(join(here.directory, 'archive'))
  const file = backupFile(join(here.directory, 'archive', archive ?? ''))
  assert.equal((await verifyBackup(file)).generation, 2)
})

test('a token or an invite of the backup lets nobody in again: either may have been revoked since', async () => {
  await using old = await place()
  const first = await running(old.options, people, 2)
  const { store } = first
  const caller = { user: 'root', roles: ['admin'] as const, via: 'session' as const }
  await store.write((work) => putUser(work, 'root', ['admin']))
  const wanted = { label: 'x', scopes: ['admin'] as const, days: 1 }
  const { token } = await createToken(store, systemClock, caller, wanted)
  assert.equal((await tokenCaller(store, systemClock, token))?.user, 'root')
  const invite = { label: '', minutes: 60, uses: 1 }
  const { token: inviting } = await store.write((work) =>
    createInvite(work, systemClock, invite, 'user:root'),
  )
  const bundle = await bundleOf(first)
  await first[Symbol.asyncDispose]()
  await using here = await place()
  await restoreBackup(chunked(bundle), here.options)
  await using restored = await openStore(here.options.store)
  assert.equal(await tokenCaller(restored, systemClock, token), undefined)
  await assert.rejects(
    restored.write((work) => usableInvite(work, Date.now(), inviting)),
    { code: 'invite.revoked' },
  )
})

test('an old backup is a rollback to whoever has seen more, until the holders accept it', async () => {
  await using old = await place()
  const first = await running(old.options, people, 2)
  const bundle = await bundleOf(first)
  assert.equal(await rotateDataKey(first, depsOf(first), 'test'), 3)
  await first[Symbol.asyncDispose]()
  await rm(join(old.directory, 'host.key'))

  await using here = await place()
  await restoreBackup(chunked(bundle), here.options)
  await using coordinator = await Coordinator.start(here.options)
  await answerAll(coordinator, await openRecovery(coordinator, depsOf(coordinator), 'test'), [
    alice,
    bob,
  ])
  assert.equal(coordinator.state, 'running')
  coordinator.setWitness('ahead', 3) // a node with the proof of generation 3 has connected
  assert.equal(coordinator.reason, 'rollback_suspected')
  const ceremony = await openRollback(coordinator, depsOf(coordinator), 'test')
  await answerAll(coordinator, ceremony, [alice, carol])
  assert.deepEqual([coordinator.state, coordinator.header?.generation], ['running', 4])
  assert.deepEqual(
    (await listWays(coordinator)).map(({ kind }) => kind),
    ['holders'],
    'the way of the lost host is gone, and the audit log says so',
  )
  const entry = await coordinator.store.read
    .selectFrom('audit')
    .select('data')
    .where('action', '=', 'coordinator.rollback_accepted')
    .executeTakeFirstOrThrow()
  assert.match(entry.data, /"dropped":\["host-key/)
})

test('a bundle is not restored over anything', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const bundle = await bundleOf(coordinator)
  const marker = await readFile(join(here.directory, 'initialised'), 'utf8')
  await assert.rejects(restoreBackup(chunked(bundle), here.options), {
    code: 'coordinator.not_empty',
  })
  assert.equal(await readFile(join(here.directory, 'initialised'), 'utf8'), marker)
  await using other = await place(here.options.store)
  await assert.rejects(restoreBackup(chunked(bundle), other.options), {
    code: 'coordinator.not_empty',
  })
})
