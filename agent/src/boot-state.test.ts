import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { childWrites } from './boot-state-child.ts'
import { keysPath } from './identity.ts'
import { runKilled } from './killed-child.ts'
import { openNodeDirectory } from './node-directory.ts'

async function scratch() {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-agent-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

async function stateOf(path: string) {
  await using node = await openNodeDirectory(path)
  return { node: node.keys.node, state: node.state, repaired: node.repaired }
}

/** A directory with two good copies that say `wrongKeys: 5`. */
async function written(path: string): Promise<string> {
  await using node = await openNodeDirectory(path)
  await node.store.write({ ...node.state, wrongKeys: 5 })
  return node.keys.node
}

test('a new machine gets keys and a factory state, once', async () => {
  await using here = await scratch()
  const first = await stateOf(here.path)
  assert.equal(first.state.phase, 'factory')
  assert.deepEqual(await stateOf(here.path), first)
})

test('two processes cannot have the same directory', async () => {
  await using here = await scratch()
  await using _node = await openNodeDirectory(here.path)
  await assert.rejects(openNodeDirectory(here.path), { code: 'base.locked' })
})

test('a damaged, missing or cut copy is repaired from the other one', async () => {
  await using here = await scratch()
  const node = await written(here.path)
  const whole = await readFile(join(here.path, 'boot-state.a'))
  for (const name of ['boot-state.a', 'boot-state.b']) {
    for (const damage of [flip(whole, 60), whole.subarray(0, 100), Buffer.alloc(0), undefined]) {
      const path = join(here.path, name)
      await (damage === undefined ? rm(path) : writeFile(path, damage))
      const found = await stateOf(here.path)
      assert.deepEqual([found.node, found.state.wrongKeys], [node, 5])
      assert.deepEqual(found.repaired, [name])
      assert.deepEqual(await readFile(path), whole)
    }
  }
})

test('any flipped bit of one copy leaves the other in force', async () => {
  await using here = await scratch()
  await written(here.path)
  const whole = await readFile(join(here.path, 'boot-state.a'))
  const bit = fc.integer({ min: 0, max: whole.length * 8 - 1 })
  await fc.assert(
    fc.asyncProperty(bit, async (at) => {
      const damaged = Buffer.from(whole)
      damaged[at >> 3] = (damaged[at >> 3] ?? 0) ^ (1 << (at & 7))
      await writeFile(join(here.path, 'boot-state.a'), damaged)
      assert.equal((await stateOf(here.path)).state.wrongKeys, 5)
      assert.deepEqual(await readFile(join(here.path, 'boot-state.a')), whole)
    }),
    { numRuns: 25 },
  )
})

test('two bad copies are a fault and never a new machine', async () => {
  await using here = await scratch()
  await written(here.path)
  const whole = await readFile(join(here.path, 'boot-state.a'))
  for (const name of ['boot-state.a', 'boot-state.b'])
    await writeFile(join(here.path, name), flip(whole, 60))
  await assert.rejects(openNodeDirectory(here.path), { code: 'agent.state_damaged' })
  for (const name of ['boot-state.a', 'boot-state.b']) await rm(join(here.path, name))
  await assert.rejects(openNodeDirectory(here.path), { code: 'agent.state_absent' })
})

test("another node's boot state is told apart from damage", async () => {
  await using here = await scratch()
  await using there = await scratch()
  await written(here.path)
  await written(there.path)
  for (const name of ['boot-state.a', 'boot-state.b'])
    await writeFile(join(here.path, name), await readFile(join(there.path, name)))
  await assert.rejects(openNodeDirectory(here.path), { code: 'agent.state_foreign' })
})

test('lost keys are a fault and no new identity is made', async () => {
  await using here = await scratch()
  await written(here.path)
  await rm(keysPath(here.path))
  await assert.rejects(openNodeDirectory(here.path), { code: 'agent.identity_absent' })
  await assert.rejects(readFile(keysPath(here.path)), { code: 'ENOENT' })
})

test('a kill after any effect leaves a state that can be read', async () => {
  let completed = false
  for (let killAt = 1; !completed && killAt < 40; killAt += 1) {
    await using here = await scratch()
    const { killed } = await runKilled('boot-state-child.ts', [here.path], killAt)
    completed = !killed
    const found = await stateOf(here.path)
    assert.ok([0, ...childWrites].includes(found.state.wrongKeys))
    if (completed) assert.equal(found.state.wrongKeys, childWrites.at(-1))
    assert.deepEqual((await stateOf(here.path)).repaired, [], `kill ${killAt}`)
    if (!killed) assert.ok(killAt > 8, 'each write has two effects')
  }
  assert.ok(completed)
})

function flip(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}
