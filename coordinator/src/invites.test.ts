import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { beginEnrolment, failEnrolment, followEnrolment } from './enrolments.ts'
import { createInvite, listInvites, revokeInvite } from './invites.ts'
import { openStore } from './store.ts'

const minute = 60_000

async function store() {
  return await openStore({ engine: 'sqlite', path: ':memory:' })
}

function clockAt(start = 1_000_000) {
  let now = start
  return {
    now: () => now,
    sleep: async () => undefined,
    advance: (milliseconds: number) => {
      now += milliseconds
    },
  }
}

const wanted = { label: 'rack 7', minutes: 60, uses: 1 }
const request = (invite: string) => ({ invite, address: '192.0.2.7', name: 'n', genesis: false })
const nothing = { phase: 'factory', ways: [], lastErrors: [] } as never // only these members are read

test('of enrolments that race for an invite, exactly as many win as it has uses', async () => {
  await using here = await store()
  const clock = clockAt()
  for (const uses of [1, 3]) {
    const { token, id } = await here.write((work) =>
      createInvite(work, clock, { ...wanted, uses }, 'user:ada'),
    )
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () =>
        here.write((work) => beginEnrolment(work, clock, request(token), 'user:ada')),
      ),
    )
    const won = outcomes.filter(({ status }) => status === 'fulfilled')
    assert.equal(won.length, uses)
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') assert.equal(outcome.reason.code, 'invite.used_up')
    const shown = (await listInvites(here.read)).find((invite) => invite.id === id)
    assert.deepEqual([shown?.used, shown?.reserved], [0, uses])
  }
})

test('a use comes back when its enrolment fails, once', async () => {
  await using here = await store()
  const clock = clockAt()
  const { token } = await here.write((work) => createInvite(work, clock, wanted, 'user:ada'))
  const begin = () => here.write((work) => beginEnrolment(work, clock, request(token), 'user:ada'))
  const { id } = await begin()
  await assert.rejects(begin(), { code: 'invite.used_up' })
  const fail = () => here.write((work) => failEnrolment(work, clock, id, 'link.unreachable', 'no'))
  await fail()
  await fail()
  await begin()
  await assert.rejects(begin(), { code: 'invite.used_up' })
})

test('unknown, expired and revoked invites are told apart, and the token is not in the store', async () => {
  await using here = await store()
  const clock = clockAt()
  const invite = await here.write((work) => createInvite(work, clock, wanted, 'user:ada'))
  const begin = (token: string) =>
    here.write((work) => beginEnrolment(work, clock, request(token), 'user:ada'))
  await assert.rejects(begin('hfi_guess'), { code: 'invite.unknown' })
  clock.advance(60 * minute)
  await assert.rejects(begin(invite.token), { code: 'invite.expired' })
  const second = await here.write((work) => createInvite(work, clock, wanted, 'user:ada'))
  await here.write((work) => revokeInvite(work, clock, second.id, 'user:ada'))
  await assert.rejects(begin(second.token), { code: 'invite.revoked' })
  await assert.rejects(
    here.write((work) => revokeInvite(work, clock, 'x'.repeat(22), 'user:ada')),
    { code: 'invite.unknown' },
  )
  const rows = JSON.stringify(await here.read.selectFrom('invites').selectAll().execute())
  const log = JSON.stringify(await here.read.selectFrom('audit').selectAll().execute())
  assert.equal(rows.includes(invite.token), false)
  assert.equal(log.includes(invite.token), false)
})

type Step = { kind: 'begin' } | { kind: 'fail' | 'done'; which: number } | { kind: 'wait' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    fc.constant<Step>({ kind: 'begin' }),
    fc.record({ kind: fc.constantFrom('fail' as const, 'done' as const), which: fc.nat(20) }),
    fc.constant<Step>({ kind: 'wait' }),
  ),
  { maxLength: 25 },
)

test('whatever happens, an invite never lets more in than it was made for', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 4 }), steps, async (uses, list) => {
      await using here = await store()
      const clock = clockAt()
      const { token } = await here.write((work) =>
        createInvite(work, clock, { ...wanted, uses }, 'user:ada'),
      )
      const open: { id: string; node: string }[] = []
      let done = 0
      let serial = 0
      for (const step of list) {
        if (step.kind === 'wait') clock.advance(minute)
        if (step.kind === 'begin') {
          const begun = await here
            .write((work) => beginEnrolment(work, clock, request(token), 'user:ada'))
            .catch((error: { code: string }) => error.code)
          const room = done + open.length < uses
          assert.equal(typeof begun === 'object', room && clock.now() < 1_000_000 + 60 * minute)
          if (typeof begun !== 'object') continue
          serial += 1
          const node = `node-${serial}`
          await here.read
            .updateTable('enrolments')
            .set({ node })
            .where('id', '=', begun.id)
            .execute()
          open.push({ id: begun.id, node })
        }
        if (step.kind === 'fail' || step.kind === 'done') {
          const [one] = open.splice(step.which % Math.max(open.length, 1), 1)
          if (one === undefined) continue
          const report = { phase: 'open', ways: [{ state: 'proven' }], lastErrors: [] } as never // as above
          const told = step.kind === 'done' ? report : nothing
          await here.write((work) => followEnrolment(work, clock, one.node, told))
          if (step.kind === 'done') done += 1
        }
        const [shown] = await listInvites(here.read)
        assert.deepEqual([shown?.used, shown?.reserved], [done, open.length])
        assert.ok(done + open.length <= uses)
      }
    }),
    { numRuns: 40 },
  )
})
