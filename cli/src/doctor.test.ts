import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ReasonCode, reasonCodes } from '@holdfast/protocol'
import {
  type CoordinatorSeen,
  type CoordinatorStatus,
  recoveryRules,
  serviceRules,
} from './doctor-coordinator.ts'
import { diagnosis, examine, failed, ok, type Rule, warning } from './doctor-findings.ts'
import { broken, id, no, now, requireCommands, yes } from './doctor-fixture.ts'
import { type Endpoint, networkRules } from './doctor-network.ts'
import { diagnosisOutcome, diagnosisText } from './doctor-text.ts'

// The doctor's judgement, from observations alone.

test('what rests on a failed layer is not looked at, unless it stands alone', () => {
  const rules: readonly Rule<number>[] = [
    { layer: 'a', judge: () => ok('fine') },
    { layer: 'b', judge: (seen) => (seen > 0 ? failed('bad', 'do it') : warning('hm')) },
    { layer: 'c', judge: () => ok('fine') },
    { layer: 'd', independent: true, judge: () => warning('own trouble') },
    { layer: 'e', judge: () => undefined },
  ]
  const states = (seen: number) => examine(rules, seen).map(({ state }) => state)
  assert.deepEqual(states(1), ['ok', 'failed', 'not looked at', 'warning', 'not looked at'])
  assert.deepEqual(states(0), ['ok', 'warning', 'ok', 'warning', 'not looked at'])
  const above = examine(rules, 0, examine(rules, 1))
  assert.deepEqual(
    above.map(({ state }) => state),
    ['not looked at', 'not looked at', 'not looked at', 'warning', 'not looked at'],
  )
})

test('a diagnosis has one verdict, one exit code, and names the layer and the commands', () => {
  const plain = (_tone: string, text: string) => text
  const found = diagnosis('thing', [
    { layer: 'a', ...warning('hm', 'look') },
    { layer: 'b', ...failed('bad', 'first', 'second') },
    { layer: 'c', ...failed('worse', 'third') },
  ])
  assert.equal(diagnosisOutcome(found).code, 2)
  assert.match(
    diagnosisText(found, plain),
    /the layer that failed: b\nnext:\n {2}first\n {2}second$/,
  )
  const warned = diagnosis('thing', [
    { layer: 'a', ...warning('hm', 'look') },
    { layer: 'b', ...warning('hm', 'look', 'more') },
  ])
  assert.equal(diagnosisOutcome(warned).code, 3)
  assert.match(diagnosisText(warned, plain), /to be looked at: a, b\nnext:\n {2}look\n {2}more$/)
  const well = diagnosis('thing', [{ layer: 'a', ...ok('fine') }])
  assert.equal(diagnosisOutcome(well).code, 0)
  assert.match(diagnosisText(well, plain), /nothing is wrong$/)
})

const endpoint: Endpoint = {
  ...{ host: 'fleet.example.com', port: 8443, what: 'the coordinator', starts: 'start it' },
  ...{ addresses: { ok: true, value: ['192.0.2.1'] }, tcp: yes, pin: 'P', skew: 0 },
  shown: { ok: true, value: 'P' },
}

const networkCases: readonly [string, Partial<Endpoint>, string | undefined, RegExp][] = [
  ['all is well', {}, undefined, /./],
  ['no such name', { addresses: no('ENOTFOUND') }, 'name', /name is wrong/],
  ['nothing runs there', { tcp: no('ECONNREFUSED') }, 'port', /does not run/],
  ['a firewall drops it', { tcp: no('ETIMEDOUT') }, 'port', /firewall/],
  ['no route', { tcp: no('EHOSTUNREACH') }, 'port', /EHOSTUNREACH/],
  ['another program', { shown: no('link.unreachable') }, 'identity', /TLS/],
  ['somebody else', { shown: { ok: true, value: 'Q' } }, 'identity', /not the pinned P/],
]
for (const [what, changes, layer, text] of networkCases) {
  test(`network: ${what}`, () => {
    const found = broken(examine(networkRules, { ...endpoint, ...changes }))
    assert.equal(found?.layer, layer)
    assert.match(found?.text ?? 'fine', text)
  })
}

test('network: clocks that differ, and an identity that nobody has pinned, are warnings', () => {
  const { pin: _pin, ...unpinned } = endpoint
  const found = examine(networkRules, { ...unpinned, skew: -1_700_000_000_000 })
  const layers = found.filter(({ state }) => state === 'warning').map(({ layer }) => layer)
  assert.deepEqual(layers, ['identity', 'clock'])
  assert.match(found.at(-1)?.text ?? '', /behind/)
})

const holder = (name: string, provenAt?: number) => ({
  ...{ name, kid: id(name) },
  ...(provenAt === undefined ? {} : { provenAt }),
})

function status(changes: Partial<CoordinatorStatus> = {}): CoordinatorStatus {
  const list = [holder('alice', now), holder('bob', now), holder('carol', now)]
  return {
    ...{ state: 'running', reason: 'open', text: 't', hint: 'h', instance: 'one' },
    ...{ identity: id('i'), alarms: [], holders: { threshold: 2, list, provenWithin90Days: 3 } },
    ...changes,
  }
}

function seenOf(changes: Partial<CoordinatorStatus>, login: CoordinatorSeen['login'] = yes) {
  const base = { url: 'https://c', status: { ok: true as const, value: status(changes) } }
  return login === undefined ? base : { ...base, login }
}

const stateOf: Readonly<Record<ReasonCode, CoordinatorStatus['state']>> = {
  ...{ claim_needed: 'uninitialised', manifest_needed: 'ready', open: 'running' },
  ...{ key_missing: 'recovery', key_mismatch: 'recovery', header_invalid: 'recovery' },
  ...{ rollback_suspected: 'recovery', storage_missing: 'recovery' },
  storage_unreachable: 'recovery',
}

const reasonCases: Readonly<Record<ReasonCode, readonly [string | undefined, RegExp, RegExp]>> = {
  open: [undefined, /./, /./],
  claim_needed: ['state', /nobody has claimed/, /coordinator claim/],
  manifest_needed: ['manifest', /no manifest/, /manifest verify FILE/],
  key_missing: ['state', /2 of 3 holders are needed: alice, bob, carol/, /coordinator recover/],
  key_mismatch: ['state', /different times/, /verify-backup/],
  header_invalid: ['state', /altered/, /verify-backup/],
  rollback_suspected: ['state', /newer/, /restore/],
  storage_missing: ['state', /not taken for new/, /verify-backup/],
  storage_unreachable: ['state', /database/, /pg_isready/],
}
for (const reason of reasonCodes) {
  test(`coordinator: ${reason}`, async () => {
    const [layer, text, next] = reasonCases[reason]
    const findings = examine(serviceRules, seenOf({ reason, state: stateOf[reason] }))
    const found = broken(findings)
    assert.equal(found?.layer, layer)
    assert.match(found?.text ?? 'fine', text)
    assert.match(found?.next?.[0] ?? 'nothing', next)
    await requireCommands(findings)
  })
}

test('coordinator: a ceremony under way says who has answered and how many are missing', () => {
  const ceremony = { id: 'c'.repeat(22), answered: ['alice'], missing: 1, expires: now }
  const sealed = { state: 'recovery', reason: 'key_missing' } as const
  const recovery = seenOf({ ...sealed, ceremony: { ...ceremony, kind: 'recovery' } })
  assert.match(broken(examine(serviceRules, recovery))?.text ?? '', /alice answered, 1 missing/)
  const waiting = { state: 'ready', reason: 'manifest_needed' } as const
  const manifest = seenOf({ ...waiting, ceremony: { ...ceremony, kind: 'manifest' } })
  const found = broken(examine(serviceRules, manifest))
  assert.match(found?.text ?? '', /waits for its holders: alice answered, 1 missing/)
  assert.match(found?.next?.[0] ?? '', /holder answer/)
})

for (const [code, text] of [
  ['user.not_signed_in', /expired/],
  ['user.forbidden', /role/],
  ['user.locked', /for a while/],
  ['user.origin_refused', /origin_refused/],
] as const) {
  test(`coordinator: ${code}`, async () => {
    const findings = examine(serviceRules, seenOf({}, no(code)))
    assert.equal(broken(findings)?.layer, 'user')
    assert.match(broken(findings)?.text ?? '', text)
    await requireCommands(findings)
  })
}

test('coordinator: holders who have not proven their keys, and alarms, are warnings', () => {
  const list = [holder('alice', now), holder('bob')]
  const stale = { threshold: 2, list, provenWithin90Days: 1 }
  const findings = examine(recoveryRules, seenOf({ holders: stale, alarms: ['disk full'] }))
  assert.deepEqual(
    findings.map(({ state }) => state),
    ['warning', 'warning'],
  )
  assert.match(findings[0]?.text ?? '', /nobody knows/)
  const enough = { threshold: 1, list, provenWithin90Days: 1 }
  assert.match(examine(recoveryRules, seenOf({ holders: enough }))[0]?.text ?? '', /never: bob/)
})
