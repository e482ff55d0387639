import assert from 'node:assert/strict'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseJsonObject, startProgram, systemClock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { startDuties } from './agents-duties.ts'
import { idle, instanceOf, tomorrow } from './agents-fixture.ts'
import { verifyAudit } from './audit.ts'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import { fleetWorld, type Member, requireOpenable } from './members-fixture.ts'
import { openStore, type Store } from './store.ts'

// The end of genesis, with the coordinator's process killed at every durable write and on both sides
// of every commit, and started again. The nodes live on: they keep their keys and come back by
// themselves. At no moment can anybody not open, and the end is always the same.

const program = fileURLToPath(new URL('crash-reshare-fixture.ts', import.meta.url))
const mostEffects = 200

async function start(directory: string, at: number) {
  return await startProgram(
    process.execPath,
    [program, directory, String(at)],
    (text) => text.includes('"ready"'),
    { readyWithin: 60_000 },
  )
}

/** A fleet of four: three that began with the holders and one that waits for its first guardians. */
async function prepared(base: string): Promise<Member[]> {
  const here = await fleetWorld({}, { began: tomorrow() })
  const members: Member[] = []
  for (const name of ['one', 'two', 'three', 'four']) members.push(await here.enrol(name))
  await here.first.agents.look()
  for (const member of members) await member.session?.[Symbol.asyncDispose]()
  await here.first[Symbol.asyncDispose]()
  await here.coordinator[Symbol.asyncDispose]()
  await cp(here.directory, base, { recursive: true })
  await rm(here.directory, { recursive: true })
  return members
}

function reset(member: Member): void {
  member.keys.clear()
  member.retired.clear()
  member.orders.clear()
  member.set = undefined
  member.report = member.enrolment?.genesis === true ? member.standing() : idle
}

async function isOver(store: Store, members: readonly Member[]): Promise<boolean> {
  requireOpenable(new Map(members.map((member) => [member.id, member])))
  if (!members.every(({ set }) => set?.guardians.length === 3)) return false
  const rows = await store.read.selectFrom('reshares').select('state').execute()
  return rows.length === 4 && rows.every(({ state }) => state === 'done')
}

/** Waits for the end; false when the process was killed before. */
async function waitFor(
  store: Store,
  members: readonly Member[],
  isKilled: () => boolean,
): Promise<boolean> {
  for (let attempt = 0; attempt < 3000; attempt += 1) {
    if (await isOver(store, members)) return true
    if (isKilled()) return false
    await systemClock.sleep(20)
  }
  throw new Error('the re-shares never came to their end')
}

/** A process that is killed at this effect; false when it came to the end before. */
async function killAt(directory: string, members: readonly Member[], at: number): Promise<boolean> {
  const started = await start(directory, at).catch(() => undefined)
  if (started === undefined) return true // killed before it listened
  await using running = started.running
  let killed = false
  void running.ended.then(() => {
    killed = true
  })
  const { port } = parseJsonObject(started.line, 'the first line')
  await using store = await openStore({ engine: 'sqlite', path: join(directory, 'state.db') })
  const url = `https://127.0.0.1:${port}`
  for (const member of members) await member.again(url)
  return !(await waitFor(store, members, () => killed))
}

/** The next process, which is this one. */
async function goOn(directory: string, members: readonly Member[]): Promise<void> {
  await using coordinator = await Coordinator.start({
    ...{ directory, store: { engine: 'sqlite', path: join(directory, 'state.db') } },
    pins: createPins({ extra: [filePin(directory)] }), // the host key has moved with the directory
  })
  await using instance = await instanceOf(coordinator, systemClock, 'one')
  const { agents, url } = instance
  const { store } = coordinator
  const failures: unknown[] = []
  const onError = (error: unknown) => failures.push(error)
  await using _ = startDuties({ agents, store, clock: systemClock, onError })
  for (const member of members) await member.again(url)
  assert.equal(await waitFor(store, members, () => false), true)
  assert.equal((await verifyAudit(store.read)).intact, true)
  assert.deepEqual(failures, [])
}

test('a coordinator that is killed anywhere in a re-share goes on with it', async () => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-reshare-crash-'))
  const [base, work] = [join(root, 'base'), join(root, 'work')]
  const members = await prepared(base)
  try {
    let at = 1
    for (; at <= mostEffects; at += 1) {
      await rm(work, { recursive: true, force: true })
      await cp(base, work, { recursive: true })
      for (const member of members) reset(member)
      const killed = await killAt(work, members, at)
      await goOn(work, members)
      if (!killed) break
    }
    assert.ok(at > 20, `${at} effects`)
    assert.ok(at <= mostEffects, 'every effect was tried')
  } finally {
    await Promise.all(members.map((member) => member[Symbol.asyncDispose]()))
    await rm(root, { recursive: true })
  }
})
