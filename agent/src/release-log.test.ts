import assert from 'node:assert/strict'
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { runKilled } from './killed-child.ts'
import type { ReleaseEntry } from './release-entries.ts'
import {
  countReleases,
  ReleaseLog,
  type ReleaseLogOptions,
  verifyReleaseLog,
} from './release-log.ts'

const small = { segmentBytes: 700, segmentsKept: 3 }

async function scratch() {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-release-log-'))
  return {
    folder,
    path: join(folder, 'releases.log'),
    names: async () => (await readdir(folder)).sort(),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

const released = (ward: string, source: string) =>
  ({ event: 'released', ward, epoch: 1, source, code: '' }) as const

/** Where each ward was last answered, as a guardian reads it. */
function sourcesOf(entries: readonly ReleaseEntry[]): Record<string, string> {
  const known = entries.filter(({ event }) => event === 'released' || event === 'carried')
  return Object.fromEntries(known.map(({ ward, source }) => [ward, source]))
}

async function reopened(path: string, options: ReleaseLogOptions = small) {
  const damages: string[] = []
  const onDamage = ({ message }: Error) => damages.push(message)
  const opened = await ReleaseLog.open(path, () => 0, { ...options, onDamage })
  return { ...opened, damages }
}

test('the log stays within its bound, and a new segment knows where wards last asked from', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  await log.append(released('rare', '192.0.2.9'))
  for (let turn = 0; turn < 100; turn += 1) {
    await log.append(released('ward', `192.0.2.${turn % 2}`))
    await log.append({ ...released('ward', ''), event: 'probed' })
  }
  const names = await here.names()
  assert.equal(names.length, 1 + small.segmentsKept, names.join())
  for (const name of names) assert.ok((await stat(join(here.folder, name))).size < 3_000)
  const { entries, damages } = await reopened(here.path)
  assert.deepEqual(sourcesOf(entries), { rare: '192.0.2.9', ward: '192.0.2.1' })
  assert.deepEqual(damages, [])
  const all = await verifyReleaseLog(here.path)
  assert.equal(all.at(-1)?.n, (all[0]?.n ?? 0) + all.length - 1, 'no gap between segments')
  assert.ok(all.filter(({ event }) => event === 'continued').length >= small.segmentsKept)
})

test('a large log of the time before segments is read once and closed', async () => {
  await using here = await scratch()
  const { log: old } = await reopened(here.path, { segmentBytes: Number.MAX_SAFE_INTEGER })
  for (let turn = 0; turn < 20; turn += 1) await old.append(released(`ward-${turn}`, '192.0.2.1'))
  const { log, entries } = await reopened(here.path)
  assert.equal(entries.length, 20)
  await log.append(released('another', '192.0.2.2'))
  assert.deepEqual(await here.names(), ['releases.log', 'releases.log.20'])
  assert.equal(Object.keys(sourcesOf((await reopened(here.path)).entries)).length, 21)
})

test('a log that is larger than any becomes is set aside, unread, and guarding goes on', async () => {
  await using here = await scratch()
  await writeFile(here.path, '')
  await truncate(here.path, 33 * 1024 * 1024)
  const { log, damages } = await reopened(here.path)
  assert.match(damages.join(), /too large.*releases\.log\.damaged-1/)
  await log.append(released('ward', '192.0.2.1'))
  assert.equal((await verifyReleaseLog(here.path)).length, 2)
  assert.equal((await stat(`${here.path}.damaged-1`)).size, 33 * 1024 * 1024)
})

test('a change in a closed segment, or between two, is found by a check of all', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  for (let turn = 0; turn < 12; turn += 1) await log.append(released('ward', `192.0.2.${turn}`))
  const [, oldest = '', newer = ''] = await here.names()
  const path = join(here.folder, oldest)
  const whole = await readFile(path, 'utf8')
  await writeFile(path, whole.replace('192.0.2.', '192.0.3.'))
  await assert.rejects(verifyReleaseLog(here.path), { code: 'agent.log_damaged' })
  await writeFile(path, whole)
  await verifyReleaseLog(here.path)
  await writeFile(path, `${whole.trimEnd().split('\n').slice(0, -1).join('\n')}\n`)
  await assert.rejects(verifyReleaseLog(here.path), { code: 'agent.log_damaged' })
  assert.ok(newer !== '')
})

test('that all closed segments are gone is found, however they went', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  for (let turn = 0; turn < 40; turn += 1) await log.append(released('ward', '192.0.2.1'))
  const closed = (await here.names()).filter((name) => /\.\d+$/.test(name))
  assert.equal(closed.length, small.segmentsKept)
  const [oldest = ''] = closed.sort((a, b) => Number(a.split('.')[2]) - Number(b.split('.')[2]))
  await rm(join(here.folder, oldest))
  assert.ok((await countReleases(here.path)) > 0, 'the oldest ones go in time')
  for (const name of closed) await rm(join(here.folder, name), { force: true })
  const gone = { code: 'agent.log_damaged', message: /goes on from a segment that is gone/ }
  await assert.rejects(countReleases(here.path), gone)
  await assert.rejects(verifyReleaseLog(here.path), gone)
})

test('each closed segment is whole, also the oldest, and also its end', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  for (let turn = 0; turn < 30; turn += 1) await log.append(released('ward', `192.0.2.${turn}`))
  const closed = (await here.names()).filter((name) => /\.\d+$/.test(name))
  assert.equal(closed.length, small.segmentsKept)
  for (const name of closed) {
    const path = join(here.folder, name)
    const whole = await readFile(path, 'utf8')
    const lines = whole.trimEnd().split('\n')
    const spoiled = ['', `${lines.slice(0, -1).join('\n')}\n`, whole.slice(0, -1), `${whole}{`]
    for (const text of spoiled) {
      await writeFile(path, text)
      const message = new RegExp(`${name} does not hang together at line \\d`)
      await assert.rejects(countReleases(here.path), { code: 'agent.log_damaged', message })
    }
    await truncate(path, 33 * 1024 * 1024)
    await assert.rejects(countReleases(here.path), { message: /too large/ })
    await writeFile(path, whole)
  }
  assert.equal(await countReleases(here.path), (await verifyReleaseLog(here.path)).length)
})

test('a log is counted while it goes on, and its segments change', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  for (let turn = 0; turn < 30; turn += 1) {
    const counting = countReleases(here.path)
    // Fewer changes of segments than readings that are tried.
    for (let each = 0; each < 5; each += 1) await log.append(released('ward', '192.0.2.1'))
    assert.ok((await counting) >= 0)
  }
  assert.equal(await countReleases(here.path), (await verifyReleaseLog(here.path)).length)
})

test('damage in the middle sets the file aside, never deletes it, and guarding goes on', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path, {})
  for (let turn = 0; turn < 3; turn += 1) await log.append(released(`ward-${turn}`, '192.0.2.1'))
  for (const round of [1, 2]) {
    const lines = (await readFile(here.path, 'utf8')).trimEnd().split('\n')
    const damaged = `${[...lines.slice(0, -1), 'rubbish', ...lines.slice(-1)].join('\n')}\n`
    await writeFile(here.path, damaged)
    const { log: anew, damages } = await reopened(here.path, {})
    assert.match(
      damages.join(),
      new RegExp(`at line \\d+: it is now releases.log.damaged-${round}`),
    )
    assert.equal(await readFile(`${here.path}.damaged-${round}`, 'utf8'), damaged)
    await anew.append(released('later', '192.0.2.7'))
    await verifyReleaseLog(here.path)
  }
  const { entries, damages } = await reopened(here.path, {})
  assert.deepEqual(damages, [], 'said once')
  assert.equal(entries[0]?.event, 'damaged')
  assert.equal(sourcesOf(entries)['ward-0'], '192.0.2.1', 'what stood before the damage is known')
})

test('a log that was cleared or put back to an older one is noticed', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  await log.append(released('ward', '192.0.2.1'))
  const early = await readFile(here.path)
  for (let turn = 0; turn < 12; turn += 1) await log.append(released('ward', `192.0.2.${turn}`))
  const spoiled = [
    () => rm(here.path),
    () => writeFile(here.path, ''),
    () => writeFile(here.path, early),
  ]
  for (const spoil of spoiled) {
    await spoil()
    const { log: anew, damages } = await reopened(here.path)
    assert.equal(damages.length, 1)
    await anew.append(released('ward', '192.0.2.1'))
    await verifyReleaseLog(here.path)
  }
})

test('a check of all finds that the segment that grows is gone, unless segments were changing', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  for (let turn = 0; turn < 12; turn += 1) await log.append(released('ward', `192.0.2.${turn}`))
  const whole = await readFile(here.path)
  const lost = { code: 'agent.log_damaged', message: /releases\.log is gone or empty/ }
  const refused = async () => {
    await assert.rejects(verifyReleaseLog(here.path), lost)
    await assert.rejects(countReleases(here.path), lost)
  }
  await truncate(here.path, 0)
  await refused()
  // The beginning of a segment is never written while the one before it is empty.
  await writeFile(`${here.path}.next`, whole)
  await refused()
  await rm(here.path)
  const closed = await verifyReleaseLog(here.path)
  assert.equal(await countReleases(here.path), closed.length)
  await rm(`${here.path}.next`)
  await refused()
  await writeFile(here.path, whole.subarray(0, 40))
  assert.deepEqual(await verifyReleaseLog(here.path), closed, 'a torn end is closed by a start')
  await writeFile(here.path, whole)
  assert.ok((await countReleases(here.path)) > closed.length)
})

test('a torn end is closed also when the power goes again while it is closed', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  await log.append(released('ward', '192.0.2.1'))
  const torn = (await readFile(here.path, 'utf8')).slice(0, 60)
  for (const left of [torn, `${torn}\n`, `${torn}\n${torn}`]) {
    await appendFile(here.path, left)
    const { damages } = await reopened(here.path)
    assert.deepEqual(damages, [])
    assert.equal((await verifyReleaseLog(here.path)).at(-1)?.event, 'torn')
  }
})

test('an append that fails leaves a log that goes on', async () => {
  await using here = await scratch()
  const { log } = await reopened(here.path)
  await log.append(released('ward', '192.0.2.1'))
  const whole = await readFile(here.path)
  // What a full disk leaves is a part of a line, and an error; a folder in its place gives the error.
  await rm(here.path)
  await mkdir(here.path)
  await assert.rejects(log.append(released('ward', '192.0.2.2')), { code: 'base.file_unreadable' })
  await assert.rejects(log.append(released('ward', '192.0.2.2')), { code: 'base.file_unreadable' })
  await rm(here.path, { recursive: true })
  await writeFile(here.path, Buffer.concat([whole, whole.subarray(0, 40)]))
  await log.append(released('ward', '192.0.2.3'))
  const events = (await verifyReleaseLog(here.path)).map(({ event }) => event)
  assert.deepEqual(events, ['released', 'torn', 'released'])
})

/** Appends as a process of its own, killed after so many effects; what it said, line by line. */
async function appending(path: string, killAt: number, count: number) {
  const { killed, text } = await runKilled('release-log-child.ts', [path, `${count}`], killAt)
  return { killed, lines: text.trimEnd().split('\n') }
}

test('killed at every step of a change of segments, nothing is lost and nothing does not fit', async () => {
  for (let killAt = 1; ; killAt += 1) {
    await using here = await scratch()
    const { killed, lines } = await appending(here.path, killAt, 10)
    const { entries, log, damages } = await reopened(here.path)
    assert.deepEqual(damages, [], `at effect ${killAt}`)
    const known = sourcesOf(entries)
    for (const ward of lines.filter((line) => line.startsWith('ward')))
      assert.equal(known[ward], `192.0.2.${ward.slice(5)}`, `at effect ${killAt}`)
    await log.append(released('later', '192.0.2.99'))
    await verifyReleaseLog(here.path)
    const names = await here.names()
    assert.ok(names.length <= 1 + small.segmentsKept && !names.includes('releases.log.next'))
    if (!killed) {
      assert.ok(killAt > 15, `${killAt} effects: segments were changed`)
      break
    }
  }
})

test('killed at every step of setting a damaged log aside, it is there and a new one goes on', async () => {
  await using origin = await scratch()
  const { log } = await reopened(origin.path, {})
  for (let turn = 0; turn < 3; turn += 1) await log.append(released(`ward-${turn}`, '192.0.2.1'))
  const lines = (await readFile(origin.path, 'utf8')).trimEnd().split('\n')
  const damaged = `${[...lines.slice(0, 2), 'rubbish', lines[2]].join('\n')}\n`
  for (let killAt = 1; ; killAt += 1) {
    await using here = await scratch()
    await writeFile(here.path, damaged)
    const first = await appending(here.path, killAt, 1)
    const second = await appending(here.path, 0, 1)
    const said = [...first.lines, ...second.lines].filter((line) => line === 'agent.log_damaged')
    assert.ok(said.length > 0, `at effect ${killAt}`)
    assert.equal(await readFile(`${here.path}.damaged-1`, 'utf8'), damaged)
    const names = await here.names()
    assert.ok(!names.includes('releases.log.damaged-2') && !names.includes('releases.log.next'))
    const all = await verifyReleaseLog(here.path)
    assert.equal(sourcesOf(all)['ward-0'], '192.0.2.0')
    assert.equal(sourcesOf(all)['ward-1'], '192.0.2.1')
    if (!first.killed) break
  }
})
