import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import { firstBootSteps } from '@holdfast/protocol/commands'
import fc from 'fast-check'
import { node as guarded, now, report } from './doctor-fixture.ts'
import { nodeChangeCommands } from './node-change-commands.ts'
import { failureOf, kindOfCode } from './node-failure.ts'
import { peerUrl } from './node-locked.ts'
import { newLines } from './node-logs.ts'
import { freshOutput, type Ordered } from './node-order.ts'
import { pickNode } from './node-place.ts'
import { counted, guardedOf, guardianPicture, nodeTable, nodeText, noteOf } from './node-text.ts'

const plain = (_tone: string, text: string) => text

/** A node that nobody guards, unless it is said. */
const node: typeof guarded = (name, changes = {}) => guarded(name, { guardians: [], ...changes })
const guardian = (name: string) => name.padEnd(43, '0')
const fleet = [
  node('web', { guardians: ['a1', 'b2', 'c3'].map(guardian) }),
  node('a1'),
  node('b2', { phase: 'locked' }),
  node('c3', { connected: false }),
]

test('a node is found by its name and by the beginning of its id', () => {
  const nodes = [node('web'), node('web-2'), node('database')]
  assert.equal(pickNode(nodes, 'web').name, 'web')
  assert.equal(pickNode(nodes, 'data').name, 'database')
  assert.equal(pickNode(nodes, 'web-2000').name, 'web-2')
  for (const [wanted, code] of [
    ['nobody', 'cli.node_unknown'],
    ['dat', 'cli.node_unknown'],
    ['', 'cli.node_unknown'],
  ] as const) {
    assert.throws(
      () => pickNode(nodes, wanted),
      (error) => isFault(error, code),
    )
  }
  const alike = [
    node('one', { node: `abcd1${'0'.repeat(38)}` }),
    node('two', { node: `abcd2${'0'.repeat(38)}` }),
  ]
  assert.throws(
    () => pickNode(alike, 'abcd'),
    (error) => isFault(error, 'cli.node_ambiguous'),
  )
})

test('a locked guardian counts, one that is away does not', () => {
  const [web] = fleet
  assert.ok(web)
  const guarded = guardedOf(web, fleet)
  assert.deepEqual(guarded, { of: 3, up: 2, threshold: 2, margin: 0, missing: ['c3'] })
  assert.equal(guardianPicture(guarded), '●●○ 2/3, needs 2')
  assert.equal(guardedOf(node('alone'), fleet), undefined)
  const gone = guardedOf(web, [web])
  assert.equal(gone?.margin, -2)
})

test('the table says what to notice, and how to begin without nodes', async () => {
  const strange = node('strange', {
    frozen: true,
    report: report({ services: { web: 'failed', db: 'running' }, incidents: ['canary: touched'] }),
  })
  const shown = await nodeTable([...fleet, strange], plain, now)
  assert.match(shown, /^web .* open +●●○ 2\/3, needs 2 +0 +0 +now/m)
  assert.match(shown, /^c3 .*not connected$/m)
  assert.match(shown, /frozen, 1 incidents, web failed$/m)
  assert.match(await nodeTable([], plain, now), /--genesis$/)
  assert.equal(noteOf(node('gone', { phase: 'left', connected: false })), '')
})

test('one node shows its guardians by name, its ways, incidents and errors', async () => {
  const way = { keyslot: 1, purpose: 'automatic', label: 'epoch 1', state: 'proven' } as const
  const [web] = fleet
  assert.ok(web)
  const told = report({
    mapped: false,
    ways: [{ ...way, provenAt: now - 60_000 }],
    lastErrors: ['no', 'no', 'why'],
  })
  const shown = await nodeText({ ...web, report: told }, fleet, plain, now)
  assert.match(shown, /guardians {3}●●○ 2\/3, needs 2, margin 0, epoch 1: a1, b2, c3/)
  assert.match(shown, /missing {5}c3/)
  assert.match(shown, /last error {2}no \(2 times\)\nlast error {2}why/)
  assert.match(shown, /1 +automatic +epoch 1 +proven +60 s/)
  assert.match(shown, /proven, not mapped/)
  const first = report({ ways: [{ ...way, label: 'temporary' }] })
  assert.match(
    await nodeText(node('first', { report: first }), [], plain, now),
    /its holders open it/,
  )
})

test('texts are counted in their order', () => {
  assert.deepEqual(counted([]), [])
  assert.deepEqual(counted(['a', 'b', 'a']), ['a (2 times)', 'b'])
})

test('of an output only what is new is shown, also after its beginning was cut off', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uuid(), { maxLength: 60 }),
      fc.nat(60),
      fc.nat(20),
      (ids, cut, lost) => {
        const lines = ids.map((id) => `${id}\n`)
        const seen = lines.slice(0, Math.min(cut, lines.length))
        const kept = lines.slice(Math.min(lost, Math.max(seen.length - 12, 0)))
        assert.equal(freshOutput(seen.join(''), kept.join('')), lines.slice(seen.length).join(''))
      },
    ),
  )
})

test('following a log shows every line once, as long as the looks overlap', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uuid(), { minLength: 1, maxLength: 40 }),
      fc.nat(40),
      fc.nat(39),
      (all, cut, from) => {
        const before = all.slice(0, cut)
        const start = Math.min(from, Math.max(before.length - 1, 0))
        assert.deepEqual(newLines(before, all.slice(start)), all.slice(before.length))
      },
    ),
  )
  assert.deepEqual(newLines(['a', 'b'], ['x', 'y']), ['x', 'y'], 'a gap shows everything')
  assert.deepEqual(newLines(['a', 'a'], ['a', 'a', 'a']), ['a'])
})

test('a failed command is the fault that the node met', () => {
  const command: Ordered = {
    ...{ id: 'c'.repeat(22), node: 'n'.repeat(43), command: 'unlock', by: 'user:admin' },
    ...{ state: 'failed', created: now, code: 'vault.passphrase_wrong', message: 'no' },
  }
  const fault = failureOf(command)
  assert.deepEqual(
    [fault.code, fault.kind, fault.message],
    ['vault.passphrase_wrong', 'integrity', 'no'],
  )
  const { code: _code, ...unexplained } = command
  assert.equal(failureOf(unexplained).code, 'cli.command_failed')
  for (const [code, kind] of [
    ['agent.guardian_unreachable', 'unavailable'],
    ['agent.state_damaged', 'integrity'],
    ['agent.command_refused', 'refused'],
    ['agent.internal', 'internal'],
    ['seal.threshold_not_met', 'unavailable'],
  ] as const) {
    assert.equal(kindOfCode(code), kind, code)
  }
})

test('the help names the steps of a first boot', () => {
  // The command tree is loaded at every start, and the schemas that know the steps are not.
  const firstBoot = nodeChangeCommands.find(({ name }) => name === 'first-boot')
  const renew = firstBoot?.options?.find(({ flags }) => flags.startsWith('--renew'))
  assert.equal(renew?.says, `make this step's things anew: ${firstBootSteps.join(', ')}`)
})

test('the address of a peer port is a host and a port, and nothing else', () => {
  assert.equal(peerUrl('192.0.2.1'), 'https://192.0.2.1:9998')
  assert.equal(peerUrl('node.example.com:443'), 'https://node.example.com:443')
  assert.equal(peerUrl('[2001:db8::1]:1234'), 'https://[2001:db8::1]:1234')
  for (const wrong of ['', 'a b', 'a/b', 'user@host', 'host?x']) {
    assert.throws(
      () => peerUrl(wrong),
      (error) => isFault(error, 'cli.usage'),
      wrong,
    )
  }
})
