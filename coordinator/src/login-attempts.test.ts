import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault, Secret, systemClock } from '@holdfast/base'
import {
  admitAttempt,
  countFailure,
  countSuccess,
  lockedNames,
  mostCounted,
} from './login-attempts.ts'
import { password, started } from './server-fixture.ts'
import { LoginDesk } from './sessions.ts'
import type { Store } from './store.ts'
import { putUser, setPassword } from './users.ts'

const minute = 60_000
const day = 24 * 60 * minute
const [office, home, stranger] = ['192.0.2.1', '2001:db8:0:1::1', '203.0.113.9']

/** A store with the user `root`, and a clock that the test moves. */
async function desks() {
  const place = await started()
  let now = 1_000 * day
  const clock = { ...systemClock, now: () => now }
  const open = async () => {
    const { coordinator, stop } = await place.start({ clock })
    const { store } = coordinator
    const desk = new LoginDesk({ store, clock, perMinute: () => 1_000 })
    const login = async (address: string, name = 'root', text = password) => {
      using secret = Secret.copy(text)
      try {
        await desk.login(name, secret, address)
        return 'in'
      } catch (error) {
        return isFault(error) ? error.code : assert.fail(String(error))
      }
    }
    return { store, login, stop, [Symbol.asyncDispose]: stop }
  }
  const first = await open()
  using secret = Secret.copy(password)
  await first.store.write((work) => putUser(work, 'root', ['admin'], secret))
  return {
    ...{ first, open, clock, pass: (time: number) => (now += time) },
    [Symbol.asyncDispose]: async () => {
      await first.stop()
      await place[Symbol.asyncDispose]()
    },
  }
}

async function fail(
  { store }: { store: Store },
  {
    now,
    times,
    address,
    name = 'root',
  }: { now: number; times: number; address: string; name?: string },
): Promise<void> {
  for (let count = 0; count < times; count += 1)
    await store.write((work) => countFailure(work, now, { name, address }))
}

/** Wrong passwords of so many other names, `x0` the oldest. */
async function countOthers(store: Store, now: number, count: number): Promise<void> {
  const others = Array.from({ length: count }, (_, index) => ({
    ...{ name: `user x${index}`, count: 4, since: now + index, until: now + index },
  }))
  await store.write(async (work) => {
    for (let start = 0; start < others.length; start += 1_000)
      await work
        .insertInto('attempts')
        .values(others.slice(start, start + 1_000))
        .execute()
  })
}

test('a stranger locks a name for strangers, not for where somebody has signed in', async () => {
  await using here = await desks()
  const { first, pass, clock } = here
  assert.equal(await first.login(office), 'in')
  assert.equal(await first.login(home), 'in')
  for (let guesses = 0; guesses < 12; guesses += 1) {
    await first.login(stranger, 'root', 'a guess')
    pass(minute)
  }
  await fail(first, { now: clock.now(), address: stranger, times: 20 })
  assert.equal(await first.login(stranger), 'user.locked')
  assert.equal(await first.login('198.51.100.7'), 'user.locked', 'nor from a new place')
  assert.equal(await first.login(office), 'in')
  assert.equal(await first.login('2001:db8:0:1:ffff::9'), 'in')
  assert.equal(await first.login(stranger), 'user.locked', 'a success elsewhere frees no stranger')

  await first.stop()
  await using second = await here.open()
  assert.equal(await second.login(office), 'in', 'it is known over a restart')
  pass(90 * day - 1)
  await fail(second, { now: clock.now(), address: stranger, times: 20 })
  assert.equal(await second.login(office), 'in')
  pass(90 * day + 1)
  await fail(second, { now: clock.now(), address: stranger, times: 20 })
  assert.equal(await second.login(office), 'user.locked', 'and for ninety days')
})

test('a known source is locked by its own wrong passwords, and only it', async () => {
  await using here = await desks()
  const { first, clock, pass } = here
  assert.equal(await first.login(office), 'in')
  assert.equal(await first.login(home), 'in')
  for (let guesses = 0; guesses < 5; guesses += 1)
    assert.equal(await first.login(office, 'root', 'mistyped'), 'user.login_refused')
  assert.equal(await first.login(office), 'user.locked')
  const locked = await lockedNames(first.store.read, clock.now())
  assert.deepEqual([...locked], [['root', clock.now() + 30_000]])
  assert.equal(await first.login(home), 'in')
  assert.equal(await first.login(stranger), 'in')
  assert.equal(await first.login(office), 'user.locked')
  pass(30_001)
  assert.equal(await first.login(office), 'in')

  await fail(first, { now: clock.now(), address: office, times: 9 })
  await fail(first, { now: clock.now(), address: '198.51.100.7', times: 9 })
  assert.equal(await first.login(office), 'user.locked')
  using secret = Secret.copy(password)
  await setPassword(first.store, clock, 'root', secret, 'user:root')
  assert.equal(await first.login(office), 'in', 'a new password unlocks everywhere')
  assert.equal(await first.login('198.51.100.7'), 'in')
})

test('locks tell nobody which names there are, also not from where somebody signs in', async () => {
  await using here = await desks()
  const { first, clock } = here
  assert.equal(await first.login(office), 'in')
  const seen: string[][] = []
  for (const name of ['root', 'nobody']) {
    const codes: string[] = []
    await fail(first, { now: clock.now(), address: stranger, name, times: 5 })
    for (const address of [stranger, office, home])
      codes.push(await first.login(address, name, 'x'))
    await fail(first, { now: clock.now(), address: office, name, times: 4 })
    for (const address of [stranger, office, home])
      codes.push(await first.login(address, name, 'x'))
    seen.push(codes)
  }
  assert.deepEqual(seen[0], seen[1])
  assert.deepEqual(seen[0]?.slice(0, 3), ['user.locked', 'user.login_refused', 'user.locked'])
  assert.equal(seen[0]?.[4], 'user.locked')
})

test('one user makes only so many sources known, and what is old goes', async () => {
  await using here = await desks()
  const { store } = here.first
  const start = here.clock.now()
  for (let host = 1; host <= 20; host += 1)
    await store.write((work) =>
      countSuccess(work, start + host, { name: 'root', address: `192.0.2.${host}` }),
    )
  await store.write((work) => countSuccess(work, start, { name: 'ada', address: office }))
  const names = async () =>
    (await store.read.selectFrom('attempts').select('name').execute()).map(({ name }) => name)
  const known = [...Array(16).keys()].map((index) => `known 192.0.2.${index + 5} root`)
  assert.deepEqual((await names()).sort(), [...known, `known ${office} ada`].sort())

  const later = start + 91 * day
  const attempt = { name: 'x', address: stranger, perMinute: 5 }
  await store.write((work) => admitAttempt(work, later, attempt))
  assert.deepEqual(await names(), [`source ${stranger}`])
})

test('only so many names are counted, the newest of them and those that are locked', async () => {
  await using here = await desks()
  const { first, clock, pass } = here
  const rows = async (kind: string) =>
    (await first.store.read.selectFrom('attempts').select('name').execute())
      .map(({ name }) => name)
      .filter((name) => name.startsWith(kind))
  await fail(first, { now: clock.now(), address: stranger, times: 5 })
  await fail(first, { now: clock.now(), address: stranger, times: 4, name: 'ada' })
  pass(1)
  await countOthers(first.store, clock.now(), mostCounted - 2)
  pass(mostCounted - 2)
  assert.equal((await rows('user ')).length, mostCounted)
  for (const name of ['eve', 'mallory']) {
    await fail(first, { now: clock.now(), address: stranger, times: 2, name })
    pass(1)
  }
  const left = await rows('user ')
  assert.equal(left.length, mostCounted)
  for (const name of ['user root', 'user eve', 'user mallory', 'user x1'])
    assert.ok(left.includes(name), name)
  for (const name of ['user ada', 'user x0']) assert.ok(!left.includes(name), name)
  assert.equal(await first.login(stranger), 'user.locked')
  await fail(first, { now: clock.now(), address: stranger, times: 3, name: 'eve' })
  assert.equal(await first.login(stranger, 'eve'), 'user.locked', 'a full table locks all the same')
})

test('what an older store has beyond the bound goes bit by bit', async () => {
  await using here = await desks()
  const { first, clock, pass } = here
  const rows = async () =>
    (await first.store.read.selectFrom('attempts').select('name').execute())
      .map(({ name }) => name)
      .filter((name) => name.startsWith('user '))
  await countOthers(first.store, clock.now(), mostCounted + 1_500)
  pass(mostCounted + 1_500)
  const left: number[] = []
  for (const name of ['eve', 'mallory', 'trent']) {
    await fail(first, { now: clock.now(), address: stranger, times: 1, name })
    left.push((await rows()).length)
    pass(1)
  }
  assert.deepEqual(left, [mostCounted + 501, mostCounted, mostCounted])
  const names = await rows()
  assert.deepEqual(
    ['user x1502', 'user x1503', 'user eve'].map((name) => names.includes(name)),
    [false, true, true],
    'the oldest ones went',
  )
})

test('a source is forgotten after its minute, however many there are', async () => {
  await using here = await desks()
  const { store } = here.first
  const sources = async () =>
    (await store.read.selectFrom('attempts').select('name').execute()).map(({ name }) => name)
  const admit = (network: number) =>
    store.write((work) =>
      admitAttempt(work, here.clock.now(), {
        ...{ name: 'root', address: `2001:db8:0:${network.toString(16)}::1`, perMinute: 2 },
      }),
    )
  for (let network = 1; network <= 50; network += 1) assert.equal(await admit(network), undefined)
  assert.equal((await sources()).length, 50)
  here.pass(minute - 1)
  await admit(1)
  assert.ok((await admit(1)) !== undefined, 'until then it counts')
  here.pass(1)
  assert.equal(await admit(51), undefined)
  assert.deepEqual(await sources(), ['source 2001:db8:0:33::/64'])
})
