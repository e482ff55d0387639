import assert from 'node:assert/strict'
import { cp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault, systemClock } from '@holdfast/base'
import { verifyAudit } from './audit.ts'
import { backupFile, verifyBackup } from './backup-check.ts'
import { expire, listCeremonies, readCeremony } from './ceremonies.ts'
import { cancelCeremony } from './ceremony-end.ts'
import { prepareClaim, readMarker, writeMarker } from './claim.ts'
import { Coordinator } from './coordinator.ts'
import {
  answerAll,
  answerOne,
  claimed,
  depsOf,
  manifestOf,
  person,
  place,
  running,
} from './coordinator-fixture.ts'
import { dismiss, openDismissal } from './dismissal.ts'
import { finish } from './finish.ts'
import { proposeManifest } from './manifests.ts'
import { openRecovery, sealByCommand } from './recovery.ts'
import { resume } from './resume.ts'
import { openRollback } from './rollback.ts'
import { addWay, dropWay, listWays, proveWay, rotateDataKey } from './way-changes.ts'

const people = ['alice', 'bob', 'carol'].map(person)
const [alice, bob, carol] = people
assert.ok(alice && bob && carol)

const audited = async (coordinator: Coordinator, action: string) =>
  await coordinator.store.read
    .selectFrom('audit')
    .selectAll()
    .where('action', '=', action)
    .orderBy('sequence')
    .execute()

test('a way is added, proven and removed alone, and the last proven one stays', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const [first] = await listWays(coordinator)
  assert.ok(first)
  await assert.rejects(dropWay(coordinator, first.id, 'test'), { code: 'coordinator.last_way' })
  const second = await addWay(coordinator, 'host-key', {}, 'test')
  assert.ok(second.provenAt !== undefined)
  await proveWay(coordinator, first.id, 'test')
  await dropWay(coordinator, first.id, 'test')
  assert.deepEqual(
    (await listWays(coordinator)).map(({ id }) => id),
    [second.id],
  )
  await rm(join(here.directory, 'host.key'))
  await assert.rejects(proveWay(coordinator, second.id, 'test'), {
    code: 'coordinator.way_unproven',
  })
  await assert.rejects(proveWay(coordinator, 'A'.repeat(22), 'test'), {
    code: 'coordinator.way_unknown',
  })
  const proofs = await audited(coordinator, 'way.prove')
  assert.deepEqual(
    proofs.map(({ outcome }) => outcome),
    ['done', 'failed'],
  )
})

test('the data key is rotated for all ways, but never to holders who have not proven theirs', async () => {
  await using here = await place()
  const coordinator = await running(here.options, people, 2)
  assert.equal(await rotateDataKey(coordinator, depsOf(coordinator), 'test'), 3)
  await coordinator.store.read.updateTable('holders').set({ proven_at: 1 }).execute()
  await assert.rejects(rotateDataKey(coordinator, depsOf(coordinator), 'test'), {
    code: 'coordinator.way_unproven',
  })
  await coordinator[Symbol.asyncDispose]()
  await rm(join(here.directory, 'host.key'))
  await using sealed = await Coordinator.start(here.options)
  assert.equal(sealed.reason, 'key_missing')
  const ceremony = await openRecovery(sealed, depsOf(sealed), 'test')
  await answerAll(sealed, ceremony, [carol, alice])
  assert.equal(sealed.state, 'running', 'the shares of the rotated key are the right ones')
  await assert.rejects(rotateDataKey(sealed, depsOf(sealed), 'test'), {
    code: 'coordinator.way_unproven',
  })
})

test('a way that is removed while the holders change does not come back with their generation', async () => {
  await using here = await place()
  await using coordinator = await running(here.options, people, 2)
  const deps = depsOf(coordinator)
  const kept = await addWay(coordinator, 'host-key', {}, 'test')
  const wanted = manifestOf([alice, bob], 2)
  const { ceremony: approval } = await proposeManifest(coordinator, deps, wanted, 'test')
  assert.ok(approval)
  await answerAll(coordinator, approval, [alice, carol])
  const [change] = await listCeremonies(deps, ['open'])
  assert.ok(change)
  await assert.rejects(addWay(coordinator, 'host-key', {}, 'test'), {
    code: 'coordinator.not_in_this_state',
  })
  await dropWay(coordinator, kept.id, 'test')
  await answerAll(coordinator, change, [alice, bob])
  assert.equal(coordinator.header?.generation, change.generation)
  const kinds = (await listWays(coordinator)).map(({ kind }) => kind)
  assert.deepEqual(kinds.sort(), ['holders', 'host-key'], 'one of the two host keys was removed')
})

test('every reading of a secret is in the audit log, also one that fails while sealed', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  using _key = await coordinator.secret('command-key', 'node:one')
  coordinator.seal()
  await assert.rejects(coordinator.secret('command-key'), { code: 'coordinator.data_key_sealed' })
  const readings = await audited(coordinator, 'secret.read')
  assert.deepEqual(
    readings.map(({ actor, outcome }) => [actor, outcome]),
    [
      ['node:one', 'done'],
      ['coordinator', 'failed'],
    ],
  )
})

test('sealed while a recovery is being finished, or a generation made, it stays sealed', async () => {
  await using here = await place()
  await using coordinator = await running(here.options, people, 2)
  const deps = depsOf(coordinator)
  coordinator.seal()
  const { id } = await openRecovery(coordinator, deps, 'test')
  for (const who of [alice, bob]) await answerOne(coordinator, await readCeremony(deps, id), who)
  const met = await readCeremony(deps, id)
  assert.equal(met.state, 'met')
  const late = [1, 2].map(() => finish(coordinator, deps, met))
  coordinator.seal()
  for (const end of await Promise.allSettled(late))
    assert.ok(end.status === 'rejected' && isFault(end.reason, 'coordinator.data_key_sealed'))
  assert.equal(coordinator.reason, 'key_missing')
  await sealByCommand(coordinator, deps, { actor: 'test', subject: 'here' })
  await assert.rejects(finish(coordinator, deps, met), { code: 'ceremony.not_open' })
  await resume(coordinator, deps)
  assert.equal(coordinator.reason, 'key_missing')
  const another = await openRecovery(coordinator, deps, 'test')
  assert.notEqual(another.id, id)
  await answerAll(coordinator, another, [alice, bob])
  assert.equal(coordinator.state, 'running')
  const { digest } = await coordinator.prepareGeneration(coordinator.header?.holders)
  const sealing = async () => coordinator.seal()
  const generation = await coordinator.activateGeneration(digest, sealing)
  assert.deepEqual(
    [coordinator.reason, coordinator.header?.generation],
    ['key_missing', generation],
  )
})

test('sealed by command it stays sealed, until it starts again', async () => {
  await using here = await place()
  const coordinator = await running(here.options, people, 2)
  coordinator.seal()
  await resume(coordinator, depsOf(coordinator))
  assert.equal(coordinator.reason, 'key_missing')
  const ceremony = await openRecovery(coordinator, depsOf(coordinator), 'test')
  await answerAll(coordinator, ceremony, [alice, bob])
  assert.equal(coordinator.state, 'running')
  coordinator.seal()
  await coordinator[Symbol.asyncDispose]()
  await using again = await Coordinator.start(here.options)
  assert.equal(again.state, 'running')
})

test('an old store put back is not run until enough holders accept it, on this host and after a restart', async () => {
  await using here = await place()
  const first = await running(here.options, people, 2)
  await first[Symbol.asyncDispose]()
  const old = join(here.directory, 'old.db')
  await cp(join(here.directory, 'state.db'), old)
  const second = await Coordinator.start(here.options)
  assert.equal(await rotateDataKey(second, depsOf(second), 'test'), 3)
  await second[Symbol.asyncDispose]()
  for (const end of ['-wal', '-shm'])
    await rm(join(here.directory, `state.db${end}`), { force: true })
  await cp(old, join(here.directory, 'state.db'))
  const third = await Coordinator.start(here.options)
  assert.deepEqual([third.state, third.reason], ['recovery', 'rollback_suspected'])
  const ceremony = await openRollback(third, depsOf(third), 'test')
  await answerOne(third, ceremony, alice)
  assert.equal(third.reason, 'rollback_suspected')
  await answerOne(third, ceremony, carol)
  await third[Symbol.asyncDispose]() // met, and killed before it was finished
  await using fourth = await Coordinator.start(here.options)
  assert.equal(fourth.reason, 'rollback_suspected')
  const events = await resume(fourth, depsOf(fourth))
  assert.deepEqual(
    events.map(({ what }) => what),
    ['finished'],
  )
  assert.deepEqual([fourth.state, fourth.header?.generation], ['running', 4])
  assert.equal((await readCeremony(depsOf(fourth), ceremony.id)).state, 'done')
})

test('what a node has witnessed stops an older state, and its acceptance goes above that', async () => {
  await using here = await place()
  await using coordinator = await running(here.options, people, 2)
  coordinator.setWitness('ahead', 9)
  assert.equal(coordinator.reason, 'rollback_suspected')
  const ceremony = await openRollback(coordinator, depsOf(coordinator), 'test')
  await answerAll(coordinator, ceremony, [bob, carol])
  assert.deepEqual([coordinator.state, coordinator.header?.generation], ['running', 10])
})

test('a ceremony that is finished by two at once is finished once, and neither complains', async () => {
  await using here = await place()
  const first = await running(here.options, people, 2)
  first.setWitness('ahead', 9)
  const rollback = await openRollback(first, depsOf(first), 'test')
  for (const who of [bob, carol]) await answerOne(first, rollback, who)
  const met = await readCeremony(depsOf(first), rollback.id)
  assert.equal(met.state, 'met')
  await Promise.all([finish(first, depsOf(first), met), resume(first, depsOf(first))])
  await finish(first, depsOf(first), met)
  assert.deepEqual([first.state, first.header?.generation], ['running', 10])
  assert.equal((await audited(first, 'coordinator.rollback_accepted')).length, 1)
  await first[Symbol.asyncDispose]()
  await rm(join(here.directory, 'host.key'))
  await using second = await Coordinator.start(here.options)
  const recovery = await openRecovery(second, depsOf(second), 'test')
  for (const who of [alice, bob]) await answerOne(second, recovery, who)
  const answered = await readCeremony(depsOf(second), recovery.id)
  await Promise.all([1, 2].map(() => finish(second, depsOf(second), answered)))
  await finish(second, depsOf(second), answered)
  assert.equal(second.state, 'running')
  assert.equal((await audited(second, 'coordinator.recovered')).length, 1)
})

test('what was cancelled or has expired is not done by somebody who had read it before', async () => {
  await using here = await place()
  await using coordinator = await running(here.options, people, 2)
  const deps = depsOf(coordinator)
  const later = { ...deps, clock: { ...systemClock, now: () => Date.now() + 48 * 60 * 60_000 } }
  coordinator.setWitness('ahead', 9)
  for (const end of [
    () => expire(later),
    async (id: string) => await cancelCeremony(deps, id, 'test'),
  ]) {
    const { id } = await openRollback(coordinator, deps, 'test')
    for (const who of [bob, carol]) await answerOne(coordinator, await readCeremony(deps, id), who)
    const met = await readCeremony(deps, id)
    await end(id)
    await assert.rejects(finish(coordinator, deps, met), { code: 'ceremony.not_open' })
    assert.equal(coordinator.header?.generation, 2)
  }
  coordinator.seal()
  const { id } = await openDismissal(coordinator, deps, 'test')
  for (const who of [bob, carol]) await answerOne(coordinator, await readCeremony(deps, id), who)
  const met = await readCeremony(deps, id)
  await cancelCeremony(deps, id, 'test')
  await assert.rejects(finish(coordinator, deps, met), { code: 'ceremony.not_open' })
  assert.ok(await coordinator.store.read.selectFrom('header').select('id').executeTakeFirst())
  assert.deepEqual(await readdir(join(here.directory, 'archive')), [])
})

test('ceremonies expire once, and one that was finished meanwhile stays finished', async () => {
  await using here = await place()
  await using coordinator = await running(here.options, people, 2)
  const deps = depsOf(coordinator)
  coordinator.seal()
  const { id } = await openRecovery(coordinator, deps, 'test')
  const clock = { ...systemClock, now: () => Date.now() + 48 * 60 * 60_000 }
  await Promise.all([1, 2].map(() => expire({ ...deps, clock })))
  assert.equal((await readCeremony(deps, id)).state, 'expired')
  assert.equal((await audited(coordinator, 'ceremony.expire')).length, 1)
})

test('the holders give an old state up: archived, in the audit log, new only then', async () => {
  await using here = await place()
  const before = await running(here.options, people, 2)
  const { cluster } = before.header ?? {}
  const pin = before.identity.digest
  await before[Symbol.asyncDispose]()
  await rm(join(here.directory, 'host.key'))
  await using coordinator = await Coordinator.start(here.options)
  const ceremony = await openDismissal(coordinator, depsOf(coordinator), 'test')
  await answerOne(coordinator, ceremony, alice)
  assert.equal(coordinator.reason, 'key_missing', 'one of two gives nothing up')
  await answerAll(coordinator, ceremony, [bob])
  assert.deepEqual([coordinator.state, coordinator.reason], ['uninitialised', 'claim_needed'])
  assert.equal(await readMarker(here.directory), undefined)
  const [archive] = await readdir(join(here.directory, 'archive'))
  const file = backupFile(join(here.directory, 'archive', archive ?? ''))
  assert.equal((await verifyBackup(file, { pinned: pin })).cluster, cluster)
  const [entry] = await audited(coordinator, 'coordinator.dismissed')
  assert.deepEqual([entry?.actor, entry?.subject], ['holders', cluster])
  const token = await readFile(join(here.directory, 'claim-token'), 'utf8')
  const fresh = await coordinator.claim(token, 'second', async () => undefined)
  assert.notEqual(fresh, cluster)
  assert.equal(coordinator.identity.digest, pin)
  assert.equal((await verifyAudit(coordinator.store.read)).intact, true)
})

test('a dismissal that is carried out twice at once happens once', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  await Promise.all([dismiss(coordinator, 'holders', []), dismiss(coordinator, 'holders', [])])
  assert.equal(coordinator.reason, 'claim_needed')
  assert.equal((await audited(coordinator, 'coordinator.dismissed')).length, 1)
  assert.equal((await readdir(join(here.directory, 'archive'))).length, 1)
})

test('an interrupted dismissal ends at the next start, and an emptied store alone is no dismissal', async () => {
  await using here = await place()
  const first = await claimed(here.options)
  const marker = await readMarker(here.directory)
  await dismiss(first, 'console', [])
  await first[Symbol.asyncDispose]()
  await writeMarker(here.directory, marker ?? '') // killed before the marker was removed
  await using second = await Coordinator.start(here.options)
  assert.equal(second.reason, 'claim_needed')
  const token = await readFile(await prepareClaim(here.directory), 'utf8')
  await second.claim(token, 'fleet', async () => undefined)
  await second.store.read.deleteFrom('header').execute()
  await second.refresh()
  assert.equal(second.reason, 'storage_missing')
  assert.deepEqual(await listCeremonies(depsOf(second), ['open']), [])
})
