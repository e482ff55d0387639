import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { prepareClaim } from './claim.ts'
import { claimOver, manifest, password, signInOver, started } from './server-fixture.ts'
import type { Store } from './store.ts'

/** The cluster whose policy agents are told; waits until there is one. */
async function publishedFor({ read }: Store): Promise<unknown> {
  for (let tried = 0; tried < 6000; tried += 1) {
    const row = await read
      .selectFrom('documents')
      .select('body')
      .where('name', '=', 'policy')
      .executeTakeFirst()
    if (row !== undefined) return JSON.parse(row.body).cluster
    await systemClock.sleep(10)
  }
  throw new Error('no policy was ever published')
}

test("a new cluster's first manifest reaches its agents, though the process has served another's", async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask, coordinator } = running
  const first = await claimOver(ask, await here.token())
  const body = { manifest: { ...manifest, holders: { none: 'there will be no recovery' } } }
  assert.equal((await ask('PUT', '/v1/manifest', body, first)).status, 200)
  const before = await publishedFor(coordinator.store)
  assert.equal((await ask('POST', '/v1/seal', {}, first)).status, 200)
  const token = (await readFile(await prepareClaim(here.directory), 'utf8')).trim()
  const recoveryOfOldState = 'give up'
  const claim = { token, user: 'root', password, recoveryOfOldState }
  assert.equal((await ask('POST', '/v1/claim', claim)).status, 200)
  const second = await signInOver(ask)
  assert.equal((await ask('PUT', '/v1/manifest', body, second)).status, 200)
  const after = await publishedFor(coordinator.store)
  assert.equal(after, coordinator.header?.cluster)
  assert.notEqual(after, before)
})
