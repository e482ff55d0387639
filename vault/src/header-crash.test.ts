import assert from 'node:assert/strict'
import { copyFile, cp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isFault, run } from '@holdfast/base'
import { parsePolicy } from '@holdfast/seal'
import { killSlot, luksType, readUuid, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { readHeaderImage } from './header.ts'
import { backupHeader, type HeaderBackup, listBackups } from './header-backup.ts'
import { type Order, orderPolicy } from './header-crash-child.ts'
import { type Bench, bind, fileDigest, makeBench, passphrase } from './header-fixture.ts'
import { overwrite, writeRegion } from './header-io.ts'
import { restoreHeader, resumeRestore } from './header-restore.ts'
import { staleBackups } from './header-stale.ts'
import { executePanic, preparePanic, resumePanic } from './panic.ts'
import { type PanicLevel, panicJournal } from './panic-record.ts'
import { readReceipts } from './receipt.ts'
import { vaultDirectory } from './state.ts'
import { filesBelow, holdsHeader } from './wipe.ts'

// Every operation is killed after its first effect, then, from the same start, after its second,
// and so on until it gets through; after each kill the state is what it may be, and resuming ends
// well. A kill is SIGKILL inside a process of its own.

const child = fileURLToPath(new URL('./header-crash-child.ts', import.meta.url))
const mostEffects = 60

let bench: Bench
let volume: VolumeRef
let backup: HeaderBackup
let uuid = ''

before(async () => {
  bench = await makeBench()
  volume = await bench.volume('volume', { small: true })
  const deps = bench.deps()
  await bind(volume, deps.pins, bench.holders.policy, 1, 'recovery')
  await bind(volume, deps.pins, parsePolicy('null', {}), 2, 'automatic')
  backup = await backupHeader(deps, volume, bench.holders.policy)
  uuid = await readUuid(volume)
  await save('bound')
})

after(async () => {
  await bench[Symbol.asyncDispose]()
})

/** Keeps the volume and the state directory as they are now under a name. */
async function save(name: string): Promise<void> {
  await copyFile(volume.device, join(bench.folder, `${name}.saved`))
  await rm(join(bench.folder, `${name}.state`), { recursive: true, force: true })
  await cp(bench.state, join(bench.folder, `${name}.state`), { recursive: true })
}

async function load(name: string): Promise<void> {
  await copyFile(join(bench.folder, `${name}.saved`), volume.device)
  await rm(bench.state, { recursive: true, force: true })
  await cp(join(bench.folder, `${name}.state`), bench.state, { recursive: true })
}

/** Runs the action until its `last`-th effect. True when it got through before. */
async function runUntil(action: Order['action'], last: number, code = ''): Promise<boolean> {
  const order: Order = {
    ...{ action, volume, uuid, state: bench.state, backup: backup.path, code },
    keys: [...bench.holders.keys],
    policy: orderPolicy(bench.holders.policy),
  }
  const file = join(bench.folder, 'order.json')
  await writeFile(file, JSON.stringify(order))
  const { code: end, stderr } = await run(process.execPath, [child, `${last}`, file], {
    accept: [0, 1, 137],
  })
  assert.notEqual(end, 1, stderr)
  return end === 0
}

/** From `start`, kills the action after each of its effects in turn. Gives how many there are. */
async function atEveryEffect(
  start: string,
  action: Order['action'],
  check: (last: number) => Promise<void>,
  code?: string,
): Promise<number> {
  for (let last = 1; last <= mostEffects; last += 1) {
    await load(start)
    if (await runUntil(action, last, code)) return last - 1
    await check(last)
  }
  return assert.fail(`more than ${mostEffects} effects`)
}

async function opens(): Promise<boolean> {
  using secret = passphrase()
  return await testPassphrase(volume, secret, 0)
}

async function clearImages(): Promise<string[]> {
  const files = await filesBelow(vaultDirectory(bench.state, uuid))
  const held = await Promise.all(files.map(holdsHeader))
  return files.filter((_, index) => held[index])
}

test('a header restore, killed after every effect, ends restored or untouched', async (t) => {
  await load('bound')
  await overwrite(volume.device, 0, 4 * 1024 * 1024, (_, n) => Buffer.alloc(n, 0x3c))
  await save('destroyed')
  const untouched = await fileDigest(volume.device)
  const outcomes = { untouched: 0, resumed: 0, finished: 0 }
  // Whoever resumes has no holder at hand.
  const alone = bench.deps(0)
  const effects = await atEveryEffect('destroyed', 'restore', async (last) => {
    const now = await fileDigest(volume.device)
    const resumed = await resumeRestore(alone, uuid)
    assert.deepEqual(await clearImages(), [], `after effect ${last}`)
    if (resumed !== undefined) outcomes.resumed += 1
    else if (now === untouched) {
      outcomes.untouched += 1
      await restoreHeader(bench.deps(2), volume, backup)
    } else outcomes.finished += 1
    using header = await readHeaderImage(volume)
    assert.equal(header.facts.digest, backup.facts.digest)
    assert.equal(await opens(), true)
  })
  t.diagnostic(`${effects} effects: ${JSON.stringify(outcomes)}`)
  assert.ok(outcomes.untouched > 0 && outcomes.resumed > 0 && outcomes.finished > 0)
})

test('resuming a restore, killed after every effect, still ends restored', async (t) => {
  // The start: killed right after the journal was written, the header half written since.
  await load('destroyed')
  await save('begun')
  for (let last = 1; last <= mostEffects; last += 1) {
    await load('destroyed')
    await runUntil('restore', last)
    const folder = join(vaultDirectory(bench.state, uuid), 'restore')
    if ((await filesBelow(folder)).some((path) => path.endsWith('journal.json'))) break
  }
  const torn = (await readFile(join(bench.folder, 'bound.saved'))).subarray(0, 100_000)
  await writeRegion(volume.device, torn)
  await save('begun')
  const effects = await atEveryEffect('begun', 'resume_restore', async () => {
    await resumeRestore(bench.deps(0), uuid)
    assert.deepEqual(await clearImages(), [])
    assert.equal(await opens(), true)
  })
  t.diagnostic(`${effects} effects`)
  assert.ok(effects > 3)
  assert.equal(await opens(), true)
})

test('an interrupted restore is not started over, and damaged files of it put the old bytes back', async () => {
  await load('begun')
  await assert.rejects(restoreHeader(bench.deps(), volume, backup), {
    code: 'vault.unfinished_change',
  })
  const folder = join(vaultDirectory(bench.state, uuid), 'restore')
  await writeFile(join(folder, 'redo.img'), 'damaged')
  await assert.rejects(resumeRestore(bench.deps(), uuid), { code: 'vault.backup_malformed' })
  assert.equal(
    await fileDigest(volume.device),
    await fileDigest(join(bench.folder, 'destroyed.saved')),
  )
  await restoreHeader(bench.deps(2), volume, backup)
  await load('begun')
  await writeFile(join(folder, 'redo.img'), 'damaged')
  await writeFile(join(folder, 'undo.img'), 'damaged')
  await assert.rejects(resumeRestore(bench.deps(), uuid), (error) => {
    assert.ok(isFault(error, 'vault.backup_malformed'))
    assert.match(error.hint ?? '', /remove .*restore /)
    return true
  })
  await rm(folder, { recursive: true })
  await restoreHeader(bench.deps(2), volume, backup)
  assert.equal(await opens(), true)
})

test('backing up after a rekey, killed after every effect, ends with one backup and none stale', async (t) => {
  await load('bound')
  await killSlot(volume, 2)
  await bind(volume, bench.deps().pins, parsePolicy('null', {}), 3, 'automatic')
  await save('rekeyed')
  const effects = await atEveryEffect('rekeyed', 'keep_backups', async (last) => {
    const { backups } = await listBackups(bench.state, uuid)
    assert.ok(backups.length > 0, `no backup at all after effect ${last}`)
    assert.equal(await runUntil('keep_backups', 0), true)
    const list = await listBackups(bench.state, uuid)
    assert.equal(list.backups.length, 1)
    assert.deepEqual(list.broken, [])
    assert.deepEqual(await staleBackups(bench.deps(), volume), [])
  })
  t.diagnostic(`${effects} effects`)
  assert.ok(effects > 5)
})

for (const level of [2, 3] as const) {
  test(`panic ${level}, killed after every effect, is finished by resuming and never goes back`, async (t) => {
    const code = await prepared(level)
    const untouched = await fileDigest(volume.device)
    const outcomes = { untouched: 0, resumed: 0, finished: 0 }
    const effects = await atEveryEffect(
      'prepared',
      'panic',
      async () => {
        const begun = (await panicJournal(bench.state, uuid).read()) !== undefined
        if (begun) {
          await refusesToComeBack('vault.wipe_unfinished')
          const receipt = await resumePanic(bench.deps(0), uuid)
          assert.equal(receipt?.receipt.sequence, 1)
          outcomes.resumed += 1
        } else if ((await readReceipts(bench.state, uuid)).length === 0) {
          assert.equal(await fileDigest(volume.device), untouched)
          assert.equal(await opens(), true)
          await executePanic(bench.deps(0), volume, uuid, code)
          outcomes.untouched += 1
        } else outcomes.finished += 1
        await isWiped(level)
      },
      code,
    )
    t.diagnostic(`${effects} effects: ${JSON.stringify(outcomes)}`)
    assert.ok(outcomes.untouched > 0 && outcomes.resumed > 3 && outcomes.finished > 0)
    await isWiped(level)
  })
}

test('resuming panic 3, killed after every effect, is resumed again', async (t) => {
  const code = await prepared(3)
  for (let last = 1; (await panicJournal(bench.state, uuid).read()) === undefined; last += 1) {
    await load('prepared')
    assert.equal(await runUntil('panic', last, code), false)
  }
  await save('started')
  const effects = await atEveryEffect('started', 'resume_panic', async () => {
    await resumePanic(bench.deps(0), uuid)
    await isWiped(3)
  })
  t.diagnostic(`${effects} effects`)
  assert.ok(effects > 10)
})

async function prepared(level: PanicLevel): Promise<string> {
  await load('bound')
  const { code } = await preparePanic(bench.deps(), volume, level)
  await save('prepared')
  return code
}

/** Restoring must be refused, with all holders there, and change nothing. */
async function refusesToComeBack(code: string): Promise<void> {
  const before = await fileDigest(volume.device)
  await assert.rejects(restoreHeader(bench.deps(3), volume, backup), { code })
  assert.equal(await fileDigest(volume.device), before)
}

/** The end state of a level: noise on the disk, one receipt, and a way back from level 2 alone. */
async function isWiped(level: 2 | 3): Promise<void> {
  assert.equal(await luksType(volume), undefined)
  assert.deepEqual(await clearImages(), [])
  const receipts = await readReceipts(bench.state, uuid)
  assert.equal(receipts.length, 1)
  assert.ok(receipts[0]?.receipt.steps.every(({ result }) => result !== 'failed'))
  const left = (await filesBelow(vaultDirectory(bench.state, uuid))).map((path) =>
    path.slice(vaultDirectory(bench.state, uuid).length + 1),
  )
  if (level === 2) {
    await restoreHeader(bench.deps(2), volume, backup)
    assert.equal(await opens(), true)
    return
  }
  assert.deepEqual(left, ['audit.log', 'lock'])
  await refusesToComeBack('vault.destroyed')
  await assert.rejects(opens(), isFault)
}
