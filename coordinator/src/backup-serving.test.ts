import assert from 'node:assert/strict'
import { readdir, readlink } from 'node:fs/promises'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { ApiClient } from '@holdfast/link/api-client'
import { keyRoutes, statusRoutes, userRoutes } from '@holdfast/protocol'
import { sql } from 'kysely'
import { recordAlone } from './audit.ts'
import { BackupCheck } from './backup-check.ts'
import { password, started } from './server-fixture.ts'

// A backup that is fetched over the API, by somebody who does not read on.

/** A served coordinator whose backup is more than every buffer on the way holds, and its administrator. */
async function large() {
  const here = await started()
  const running = await here.start()
  const place = {
    url: `https://127.0.0.1:${running.server.port}`,
    identity: running.coordinator.identity.digest,
  }
  using anybody = new ApiClient(place)
  const user = { user: 'root', password }
  await anybody.call(statusRoutes.claim, { body: { token: await here.token(), ...user } })
  const { value, cookie } = await anybody.send(userRoutes.login, { body: user })
  const { token } = await anybody.call(userRoutes.createToken, {
    headers: { cookie, 'x-csrf-token': value.csrf },
    body: { label: 'test', scopes: ['admin'] },
  })
  const body = 'x'.repeat(1_000_000)
  for (let version = 1; version <= 48; version += 1) {
    const row = { name: `document ${version}`, version, body, signature: '' }
    await running.coordinator.store.write((work) =>
      work.insertInto('documents').values(row).execute(),
    )
  }
  const admin = new ApiClient({ ...place, token })
  /** Whether somebody still reads an older state: then what was written since stays in the log of SQLite. */
  const held = async () => {
    const { store } = running.coordinator
    const entry = { actor: 'test', action: 'test.entry', subject: '', outcome: 'done' as const }
    await recordAlone(store, systemClock, entry)
    const asked = sql<{ log: number; checkpointed: number }>`pragma wal_checkpoint(passive)`
    const [row] = (await asked.execute(store.read)).rows
    assert.ok(row)
    return row.checkpointed < row.log
  }
  return {
    ...{ admin, running, held, directory: here.directory },
    [Symbol.asyncDispose]: async () => {
      admin[Symbol.dispose]()
      await running.stop()
      await here[Symbol.asyncDispose]()
    },
  }
}

async function until(is: () => Promise<boolean>): Promise<void> {
  for (let turn = 0; turn < 500 && !(await is()); turn += 1) await systemClock.sleep(20)
  assert.equal(await is(), true)
}

test('one is fetched at a time, others are served meanwhile, and who goes away holds nothing', async () => {
  await using here = await large()
  const { admin, held } = here
  assert.equal(await held(), false)
  const stalled = admin.receive(keyRoutes.backup)
  await stalled.next()
  assert.equal(await held(), true)
  await assert.rejects(admin.receive(keyRoutes.backup).next(), {
    code: 'coordinator.backup_busy',
    kind: 'busy',
  })
  assert.equal((await admin.call(keyRoutes.list)).ways.length, 1)
  await stalled.return(undefined)
  await until(async () => !(await held()))
  const check = new BackupCheck({ pinned: admin.place.identity })
  for await (const _segment of check.pass(admin.receive(keyRoutes.backup)));
  assert.equal(check.report().rows.documents, 48)
  const made = await here.running.coordinator.store.read
    .selectFrom('audit')
    .select('subject')
    .where('action', '=', 'backup.make')
    .orderBy('sequence')
    .execute()
  assert.equal(made.length, 2, 'the one that was refused made none, the one that broke off did')
  assert.equal(made.at(-1)?.subject, check.report().bundle)
  await until(async () => !(await held()))
})

test('a coordinator that stops lets go of a backup that is being fetched', async () => {
  await using here = await large()
  const stalled = here.admin.receive(keyRoutes.backup)
  await stalled.next()
  await here.running.stop()
  await assert.rejects(
    async () => {
      for await (const _part of stalled);
    },
    { code: 'link.unreachable' },
  )
  await until(async () => {
    const files = (await readdir('/proc/self/fd')).map((fd) =>
      readlink(`/proc/self/fd/${fd}`).catch(() => ''),
    )
    return (await Promise.all(files)).every((path) => !path.startsWith(here.directory))
  })
})
