import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { type GenerationCounter, HostWitness, writeFirstWitness } from './witness.ts'

const cluster = 'c'.repeat(22)

/** A counter like the TPM's; it may lose power before or after it has advanced. */
class Counter implements GenerationCounter {
  /** A new counter begins above all that there ever were. */
  value: number | undefined
  #highest = 7
  fails: 'before' | 'after' | undefined

  async read(): Promise<number | undefined> {
    return this.value
  }

  async advance(): Promise<number> {
    const { fails } = this
    this.fails = undefined
    if (fails === 'before') throw new Error('power')
    this.value = (this.value ?? this.#highest) + 1
    this.#highest = this.value
    if (fails === 'after') throw new Error('power')
    return this.value
  }
}

async function disk() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-witness-'))
  const path = join(directory, 'witness')
  return {
    directory,
    copy: () => readFile(path, 'utf8').catch(() => undefined),
    putBack: (text: string | undefined) =>
      text === undefined ? rm(path, { force: true }) : writeFile(path, text),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

test('whatever loses power when, a disk that was not put back is never suspected', async () => {
  const step = fc.record({
    generation: fc.integer({ min: 1, max: 6 }),
    fails: fc.constantFrom(undefined, 'before' as const, 'after' as const),
  })
  const runs = fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
    await using here = await disk()
    const counter = new Counter()
    let highest = 0
    for (const { generation, fails } of steps) {
      const host = new HostWitness(here.directory, counter)
      assert.equal((await host.look(cluster)).behind, false)
      counter.fails = fails
      highest = await host.note({ cluster, generation }).then(
        () => Math.max(highest, generation),
        () => highest,
      )
      counter.fails = undefined
      const { behind, generation: seen } = await host.look(cluster)
      assert.equal(behind, false)
      assert.ok(seen >= highest)
    }
  })
  await fc.assert(runs, { numRuns: 150 })
})

test('an old disk is suspected, also without its file, until a newer generation is noted', async () => {
  await using here = await disk()
  const counter = new Counter()
  const host = new HostWitness(here.directory, counter)
  const copies = [await here.copy()]
  for (const generation of [1, 2, 3]) {
    await host.note({ cluster, generation })
    copies.push(await here.copy())
  }
  const newest = copies.pop()
  // One step back is what a crash between file and counter looks like from the other side: told apart.
  for (const copy of copies) {
    await here.putBack(copy)
    assert.equal((await host.look(cluster)).behind, true, String(copy))
  }
  await here.putBack(newest)
  assert.deepEqual(await host.look(cluster), { generation: 3, behind: false })
  await here.putBack(copies[1])
  await host.note({ cluster, generation: 4 })
  assert.deepEqual(await host.look(cluster), { generation: 4, behind: false })
})

test('another TPM, or one that was cleared, is suspected; a host that just joined is not', async () => {
  await using here = await disk()
  const host = new HostWitness(here.directory, new Counter())
  await host.note({ cluster, generation: 2 })
  const cleared = new HostWitness(here.directory, new Counter())
  assert.equal((await cleared.look(cluster)).behind, true)
  const used = new Counter()
  await used.advance()
  await writeFirstWitness(here.directory, { cluster, generation: 5 })
  const joined = new HostWitness(here.directory, used)
  assert.deepEqual(await joined.look(cluster), { generation: 5, behind: false })
  await joined.note({ cluster, generation: 5 })
  assert.deepEqual(await joined.look(cluster), { generation: 5, behind: false })
  assert.match(String(await here.copy()), / 5 9\n$/)
})

test('without a counter the file alone remembers, and never goes back by itself', async () => {
  await using here = await disk()
  const host = new HostWitness(here.directory)
  await host.note({ cluster, generation: 3 })
  await host.note({ cluster, generation: 2 })
  assert.deepEqual(await host.look(cluster), { generation: 3, behind: false })
  assert.deepEqual(await host.look('d'.repeat(22)), { generation: 0, behind: false })
  const both = new HostWitness(here.directory, new Counter())
  await Promise.all([3, 4, 5, 6].map((generation) => both.note({ cluster, generation })))
  assert.deepEqual(await both.look(cluster), { generation: 6, behind: false })
  await here.putBack('damaged')
  assert.equal((await host.look(cluster)).generation, 0)
})
