import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { nameSchema } from '@holdfast/protocol'
import { instanceOf, until } from './agents-fixture.ts'
import { listCeremonies, readCeremony } from './ceremonies.ts'
import { cancelCeremony } from './ceremony-end.ts'
import type { Coordinator } from './coordinator.ts'
import {
  answerAll,
  answerOne,
  claimed,
  depsOf,
  manifestOf,
  type Person,
  person,
  place,
  running,
} from './coordinator-fixture.ts'
import { finish } from './finish.ts'
import {
  beginHolderChange,
  headerHolders,
  holderMargin,
  holderStates,
  preparedWay,
  proofAge,
} from './holders.ts'
import { readManifest } from './manifest-diff.ts'
import { followManifest } from './manifest-duty.ts'
import {
  continueHolderChange,
  currentManifest,
  openApproval,
  proposeManifest,
  provenHolders,
} from './manifests.ts'
import { RateLimits } from './rate-limits.ts'
import { resume } from './resume.ts'

// What a manifest may say, and how changes of it are approved.

const people = ['alice', 'bob', 'carol', 'dave', 'erin'].map(person)
const [alice, bob, carol] = people
assert.ok(alice && bob && carol)

const spki = { type: 'spki', format: 'pem' } as const
const pemOf = (key: { export(options: typeof spki): string | Buffer }) => `${key.export(spki)}`

/** The places of what is wrong. */
function problems(changes: Record<string, unknown>): string[] {
  try {
    readManifest({ ...manifestOf(people, 3), ...changes })
    return []
  } catch (error) {
    const { code, details } = error as { code: string; details: { issues: { path: string }[] } }
    assert.equal(code, 'coordinator.manifest_invalid')
    return details.issues.map(({ path }) => path)
  }
}

test('no name is that of a member which every object has', () => {
  const inherited = Object.getOwnPropertyNames(Object.prototype)
  assert.ok(inherited.includes('constructor'))
  for (const name of inherited) {
    assert.equal(nameSchema.safeParse(name).success, false, name)
    const service = { command: ['/bin/true'], directory: 'd' }
    if (name !== '__proto__') assert.equal(problems({ services: { [name]: service } }).length, 1)
  }
  assert.equal(nameSchema.safeParse('constructors').success, true)
})

test('every key can do its work, and no two names have the same one, however it is written', () => {
  const keys = (over: Record<string, string>) => ({
    holders: { threshold: 1, keys: { alice: alice.pem, ...over } },
  })
  assert.deepEqual(problems({}), [])
  const p256 = pemOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey)
  assert.deepEqual(problems(keys({ bob: p256 })), [])
  const bad = {
    short: pemOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey),
    // Opens a share, but cannot sign an answer.
    mute: pemOf(generateKeyPairSync('x25519').publicKey),
    curve: pemOf(generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey),
    none: '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----',
  }
  for (const [name, key] of Object.entries(bad))
    assert.deepEqual(problems(keys({ [name]: key })), [`holders.keys.${name}`])
  const lines = alice.pem.split('\n').slice(1, -2).join('')
  const unwrapped = `-----BEGIN PUBLIC KEY-----\n${lines}\n-----END PUBLIC KEY-----\n\n`
  assert.ok(problems(keys({ twin: unwrapped })).length > 0)
  const releases = { threshold: 1, keys: { ci: bad.short } }
  assert.deepEqual(problems({ releases }), ['releases.keys.ci'])
  const ed25519 = pemOf(generateKeyPairSync('ed25519').publicKey)
  assert.deepEqual(problems({ releases: { threshold: 1, keys: { ci: ed25519 } } }), [])
})

test('unknown members are refused at every depth, and no recovery only in the very words', () => {
  assert.deepEqual(problems({ holder: {} }), [''])
  assert.deepEqual(problems({ guardians: { cuont: 5 } }), ['guardians'])
  assert.deepEqual(problems({ limits: { loginsPerHour: 5 } }), ['limits'])
  assert.deepEqual(problems({ holders: {} }), ['holders'])
  assert.deepEqual(problems({ holders: { none: 'no recovery' } }), ['holders'])
  assert.deepEqual(problems({ holders: { none: 'there will be no recovery' } }), [])
})

test('a manifest that names users must leave somebody who can set the next one', () => {
  assert.deepEqual(problems({ users: { eve: { roles: ['auditor'] } } }), ['users'])
  assert.deepEqual(problems({ users: { eve: { roles: ['admin'] } } }), [])
  assert.deepEqual(problems({ users: {} }), [])
})

test('a manifest that could be put in force and never be read again is refused', async () => {
  const words = (most: number) => Array.from({ length: 64 }, () => 'x'.repeat(most))
  const services = (count: number) => {
    const names = Array.from({ length: count }, (_, index) => `service-${index}`)
    return Object.fromEntries(
      names.map((name) => [name, { command: words(1000), directory: name }]),
    )
  }
  assert.deepEqual(problems({ services: services(20) }), [''])
  await using here = await cluster()
  const { coordinator, deps } = here
  const wide = { ...manifestOf(people.slice(0, 3), 2), services: services(6) }
  const { ceremony } = await proposeManifest(coordinator, deps, wide, 'test')
  assert.ok(ceremony)
  await answerAll(coordinator, ceremony, [alice, bob])
  const { manifest } = (await currentManifest(coordinator)) ?? {}
  assert.equal(Object.keys(manifest?.services ?? {}).length, 6, 'the largest one is read again')
})

const named = (who: readonly Person[], threshold: number, changes: Record<string, unknown>) => ({
  ...manifestOf(who, threshold),
  ...changes,
})

async function cluster() {
  const here = await place()
  const coordinator = await running(here.options, people.slice(0, 3), 2)
  return {
    coordinator,
    deps: depsOf(coordinator),
    [Symbol.asyncDispose]: async () => {
      await coordinator[Symbol.asyncDispose]()
      await here[Symbol.asyncDispose]()
    },
  }
}

const inForce = async (coordinator: Coordinator) => {
  const current = await currentManifest(coordinator)
  return [current?.version, current?.manifest.twoPersonRule, current?.manifest.genesis.peers]
}

test('what was approved as a change of an older manifest does not undo what came between', async () => {
  await using here = await cluster()
  const { coordinator, deps } = here
  const three = people.slice(0, 3)
  const one = await openApproval(
    coordinator,
    deps,
    named(three, 2, { twoPersonRule: true }),
    'user:a',
  )
  const two = await openApproval(
    coordinator,
    deps,
    named(three, 2, { genesis: { peers: 7 } }),
    'user:a',
  )
  await answerAll(coordinator, one, [alice, bob])
  assert.deepEqual(await inForce(coordinator), [2, true, 5])
  await answerOne(coordinator, two, alice)
  await answerOne(coordinator, two, bob)
  const met = await readCeremony(deps, two.id)
  await assert.rejects(finish(coordinator, deps, met), { code: 'ceremony.superseded' })
  const events = await resume(coordinator, deps)
  assert.deepEqual(
    events.map(({ what, subject, reason }) => [what, subject, reason]),
    [['given up', two.id, 'ceremony.superseded']],
  )
  assert.deepEqual(await inForce(coordinator), [2, true, 5])
  assert.equal((await readCeremony(deps, two.id)).state, 'cancelled')
})

test('a manifest that two instances finish comes into force once, and what is done stays done', async () => {
  await using here = await cluster()
  const { coordinator, deps } = here
  const wanted = named(people.slice(0, 3), 2, { twoPersonRule: true })
  const ceremony = await openApproval(coordinator, deps, wanted, 'user:a')
  await answerOne(coordinator, ceremony, alice)
  await answerOne(coordinator, ceremony, carol)
  const met = await readCeremony(deps, ceremony.id)
  await Promise.all([finish(coordinator, deps, met), finish(coordinator, deps, met)])
  assert.deepEqual(await inForce(coordinator), [2, true, 5])
  await assert.rejects(cancelCeremony(deps, ceremony.id, 'user:a'), { code: 'ceremony.not_open' })
  assert.equal((await readCeremony(deps, ceremony.id)).state, 'done')
})

test('while the circle of holders is growing, those of before can still approve', async () => {
  await using here = await cluster()
  const { coordinator, deps } = here
  const wider = named(people, 5, {})
  const first = await openApproval(coordinator, deps, wider, 'user:a')
  await answerAll(coordinator, first, [alice, bob])
  assert.equal(coordinator.header?.holders?.list.length, 3, 'the new ones have proven nothing yet')
  const back = named(people.slice(0, 3), 2, { twoPersonRule: true })
  const second = await openApproval(coordinator, deps, back, 'user:a')
  assert.equal(second.threshold, 3)
  await answerAll(coordinator, second, [alice, bob, carol])
  assert.deepEqual(await inForce(coordinator), [3, true, 5])
})

test('nodes are told of other holders only once these have proven their shares', async () => {
  await using here = await cluster()
  const { coordinator, deps } = here
  await using instance = await instanceOf(coordinator, systemClock, 'one')
  const failures: unknown[] = []
  await using _ = followManifest({
    ...{ coordinator, agents: instance.agents, clock: systemClock, fixed: true },
    limits: new RateLimits(systemClock, { all: 100, open: 100, logins: 10 }),
    onError: (error) => failures.push(error),
  })
  const told = async (): Promise<{ twoPersonRule?: boolean; holders?: { keys: object } }> => {
    const row = await coordinator.store.read
      .selectFrom('documents')
      .select('body')
      .where('name', '=', 'policy')
      .executeTakeFirst()
    return JSON.parse(row?.body ?? '{}')
  }
  const names = async () => Object.keys((await told()).holders?.keys ?? {}).join()
  await until(async () => (await names()) === 'alice,bob,carol', 'the first policy')
  const others = named(people.slice(3), 1, { twoPersonRule: true })
  await answerAll(coordinator, await openApproval(coordinator, deps, others, 'user:a'), [
    alice,
    bob,
  ])
  await until(async () => (await told()).twoPersonRule === true, 'the policy of the new manifest')
  assert.equal(await names(), 'alice,bob,carol', 'dave and erin have shown nothing yet')
  const { manifest } = (await currentManifest(coordinator)) ?? {}
  assert.ok(manifest !== undefined && 'keys' in manifest.holders)
  const given = provenHolders(coordinator, manifest)
  assert.ok('keys' in given)
  assert.deepEqual(
    Object.keys(given.keys),
    ['alice', 'bob', 'carol'],
    'what new nodes are bound to',
  )
  assert.equal(given.threshold, 2)
  const proof = await continueHolderChange(coordinator, deps)
  assert.equal(proof, undefined, 'it has begun')
  const [open] = await listCeremonies(deps, ['open'])
  assert.equal(open?.kind, 'holders')
  await answerAll(coordinator, open, people.slice(3, 4))
  await until(async () => (await names()) === 'dave,erin', 'the policy of the proven ones')
  assert.deepEqual(failures, [])
})

test('users who were named are not left out all at once: naming nobody would remove nobody', async () => {
  await using here = await cluster()
  const { coordinator, deps } = here
  const users = { ada: { roles: ['admin'] }, ben: { roles: ['operator'] } }
  const set = async (over: Record<string, unknown>) => {
    const wanted = named(people.slice(0, 3), 2, over)
    await answerAll(coordinator, await openApproval(coordinator, deps, wanted, 'user:a'), [
      alice,
      bob,
    ])
  }
  await set({ users })
  await assert.rejects(set({}), { code: 'coordinator.manifest_invalid', message: /ada, ben/ })
  await set({ users: { ada: users.ada } })
  const rows = await coordinator.store.read.selectFrom('users').select('name').execute()
  assert.deepEqual(
    rows.map(({ name }) => name),
    ['ada'],
  )
})

test('the status counts who has proven a key in 90 days, and alarms below the threshold', async () => {
  await using here = await cluster()
  const { coordinator } = here
  const { header, store } = coordinator
  assert.ok(header)
  const states = await holderStates(store, header)
  const now = Date.now()
  assert.deepEqual(holderMargin(states, 2, now), { proven: 2 })
  const later = holderMargin(states, 2, now + proofAge + 60_000)
  assert.equal(later.proven, 0)
  assert.match(String(later.alarm), /only 0 of 3 holders proved their key in 90 days, and 2 are/)
  const silent = await proposeManifest(
    coordinator,
    here.deps,
    named(people.slice(0, 3), 2, {}),
    'user:a',
  )
  assert.equal(silent.ceremony, undefined, 'the manifest in force needs nothing')
})

test('a change of holders that is begun twice keeps the shares that holders were given', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const deps = depsOf(coordinator)
  const manifest = readManifest(manifestOf([alice, bob, carol], 2))
  assert.ok('keys' in manifest.holders)
  const wanted = headerHolders(manifest.holders)
  const first = await beginHolderChange(coordinator, deps, wanted, 'user:owner')
  const given = await preparedWay(coordinator)
  const second = await beginHolderChange(coordinator, deps, wanted, 'coordinator')
  assert.equal(second.id, first.id)
  assert.equal(await preparedWay(coordinator), given)
  const others = { ...wanted, threshold: 1 }
  assert.notEqual((await beginHolderChange(coordinator, deps, others, 'user:owner')).id, first.id)
  assert.notEqual(await preparedWay(coordinator), given)
})
