import assert from 'node:assert/strict'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import { verifyAudit } from './audit.ts'
import { listCeremonies } from './ceremonies.ts'
import { Coordinator } from './coordinator.ts'
import { depsOf, person } from './coordinator-fixture.ts'
import { optionsIn, scenarios } from './crash-fixture.ts'
import { currentManifest } from './manifests.ts'

// SIGKILL at every durable write and on both sides of every commit; then a new process goes on. The
// end is the same as without the kill, and in between nothing is ever taken for new.

type Name = keyof typeof scenarios

const people = ['alice', 'bob', 'carol'].map(person)
const program = fileURLToPath(new URL('crash-fixture.ts', import.meta.url))
const mostEffects = 80

/** State, generation, holders and manifest at the end: what must not depend on a kill. */
async function outcome(directory: string) {
  await using coordinator = await Coordinator.start(optionsIn(directory))
  const deps = depsOf(coordinator)
  const manifest = await currentManifest(coordinator)
  const open = await listCeremonies(deps, ['open', 'met'])
  assert.equal((await verifyAudit(coordinator.store.read)).intact, true)
  return {
    state: coordinator.state,
    holders: coordinator.header?.holders?.list.map(({ name }) => name),
    threshold: coordinator.header?.holders?.threshold,
    manifest: manifest?.version,
    open: open.length,
  }
}

async function crashEverywhere(name: Name, before: readonly Name[], prepare?: 'lose host key') {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-crash-'))
  try {
    const [work, base] = [join(root, 'work'), join(root, 'base')]
    const file = join(root, 'people.json')
    const keys = people.map(({ name, pem, privateKey }) => ({
      name,
      pem,
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    }))
    await writeFile(file, JSON.stringify(keys), { mode: 0o600 })
    await mkdir(work)
    for (const earlier of before) await scenarios[earlier](optionsIn(work), people)
    if (prepare !== undefined) await rm(join(work, 'host.key'))
    await cp(work, base, { recursive: true })
    // Only a dismissal may ever end as new, and only after its signed entry was committed.
    const neverNew = before.length > 0 && name !== 'dismissal'
    await scenarios[name](optionsIn(work), people)
    const wanted = name === 'recovery' ? undefined : await outcome(work)
    let killed = 0
    for (let at = 1; at <= mostEffects; at += 1) {
      await rm(work, { recursive: true })
      await cp(base, work, { recursive: true })
      const { code } = await run(process.execPath, [program, name, work, file, String(at)], {
        accept: [0, 137],
      })
      if (code === 0) break
      killed += 1
      const between = await Coordinator.start(optionsIn(work))
      if (neverNew) assert.notEqual(between.state, 'uninitialised', `after effect ${at}`)
      assert.notEqual(between.reason, 'storage_missing', `after effect ${at}`)
      await between[Symbol.asyncDispose]()
      await scenarios[name](optionsIn(work), people)
      if (wanted !== undefined) assert.deepEqual(await outcome(work), wanted, `effect ${at}`)
      else await requireRecovered(work, at)
    }
    assert.ok(killed < mostEffects, 'every effect was tried')
    return killed
  } finally {
    await rm(root, { recursive: true })
  }
}

/** A recovery leaves no way of its own behind: only its record says that it came to its end. */
async function requireRecovered(directory: string, at: number): Promise<void> {
  await using coordinator = await Coordinator.start(optionsIn(directory))
  const done = await listCeremonies(depsOf(coordinator), ['done'])
  const recoveries = done.filter(({ kind }) => kind === 'recovery')
  assert.ok(recoveries.length >= 1, `no recovery ended after effect ${at}`)
  assert.deepEqual(await listCeremonies(depsOf(coordinator), ['open', 'met']), [])
  const kept = await coordinator.store.read
    .selectFrom('answers')
    .select('holder')
    .where('sealed', '!=', '')
    .execute()
  assert.deepEqual(kept, [], 'no share stays behind')
}

test('claiming', async () => {
  assert.ok((await crashEverywhere('claim', [])) >= 7)
})

test('the first manifest and its holders', async () => {
  assert.ok((await crashEverywhere('manifest', ['claim'])) >= 12)
})

test('another circle of holders', async () => {
  assert.ok((await crashEverywhere('holders', ['claim', 'manifest'])) >= 12)
})

test('rotating the data key', async () => {
  assert.ok((await crashEverywhere('rotate', ['claim', 'manifest'])) >= 5)
})

test('a recovery', async () => {
  assert.ok((await crashEverywhere('recovery', ['claim', 'manifest'], 'lose host key')) >= 7)
})

test('giving an old state up', async () => {
  assert.ok((await crashEverywhere('dismissal', ['claim', 'manifest'], 'lose host key')) >= 7)
})
