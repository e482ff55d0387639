import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LockedState } from '@holdfast/protocol'
import { examine } from './doctor-findings.ts'
import { id, node, now, report, requireCommands } from './doctor-fixture.ts'
import { nodeRules } from './doctor-node.ts'
import { type LockedSeen, type LockedWhy, whyLocked, whyText } from './node-why.ts'

// Why a locked node is locked, from observations alone.

const plain = (_tone: string, text: string) => text
const peers = [node('a1'), node('b2'), node('c3')]
const locked = report({ phase: 'locked' })

function state(changes: Partial<LockedState['progress'] & object>): LockedState {
  const progress = { answered: ['a1', 'b2'].map(id), missing: [], threshold: 2, attempts: 4 }
  return {
    ...{ v: 1, node: id('web'), name: 'web', phase: 'locked', epoch: 1, needs: [] },
    ...{ network: 'mutual-tls', keys: 'file', wrongKeys: 1, lastErrors: [], exchange: 'K' },
    ...{ recovery: [], progress: { ...progress, ...changes } },
  }
}

const tang = { pin: 'tang', label: 'http://tang1', reason: 'seal.unreachable: refused' }
const temporary = [{ ...report().ways[0], label: 'temporary' }] as LockedSeen['report']['ways']

const cases: readonly [string, Partial<LockedSeen>, LockedWhy['reason'], RegExp, RegExp][] = [
  ['nothing hinders it', {}, 'opening', /enough guardians/, /doctor node web/],
  [
    'held, which counts before frozen',
    { report: report({ phase: 'locked', held: 'panic 1' }), node: node('web', { frozen: true }) },
    'held',
    /panic 1/,
    /node unlock web --key/,
  ],
  ['frozen', { node: node('web', { frozen: true }) }, 'frozen', /releases/, /node unfreeze web/],
  [
    'only its holders open it yet',
    { node: node('web', { guardians: [] }), report: { ...locked, ways: temporary } },
    'awaiting_genesis',
    /holders open it/,
    /node unlock web --genesis/,
  ],
  [
    'guardians without a session, and nobody reaches its peer port',
    { nodes: [node('a1'), node('b2', { connected: false }), node('c3', { connected: false })] },
    'guardians',
    /1 more of its guardians must answer: b2, c3/,
    /doctor node web/,
  ],
  [
    'guardians that refuse, as it says itself',
    {
      state: state({ answered: [], missing: [{ guardian: id('a1'), reason: 'agent.frozen: no' }] }),
    },
    'guardians',
    /2 more of its guardians must answer: a1/,
    /doctor node web/,
  ],
  ['its key servers are away', { state: state({ failed: [tang] }) }, 'pins', /http:\/\/tang1/, /./],
]
for (const [what, changes, reason, text, next] of cases) {
  test(`locked: ${what}`, async () => {
    const seen = { node: node('web'), nodes: peers, report: locked, ...changes }
    const why = whyLocked(seen)
    assert.equal(why?.reason, reason)
    assert.match(why.text, text)
    assert.match(why.next[0] ?? '', next)
    await requireCommands([{ layer: 'why', state: 'failed', text: why.text, next: why.next }])
  })
}

test('an open node is not asked why it is locked', () => {
  assert.equal(whyLocked({ node: node('web'), nodes: peers, report: report() }), undefined)
})

test('the text names each guardian and each way with its reason, and the commands', () => {
  const missing = [{ guardian: id('c3'), reason: 'agent.frozen: no' }]
  const seen = {
    node: node('web'),
    nodes: peers,
    report: locked,
    state: state({ missing, failed: [tang] }),
  }
  const why = whyLocked(seen)
  assert.ok(why)
  assert.deepEqual(whyText(why, plain).split('\n'), [
    'why         enough guardians answer, but not enough of its other ways: http://tang1',
    'guardians   2 of 3 answered, 2 needed, attempt 4',
    '            c3: agent.frozen: no',
    'tang        http://tang1: seal.unreachable: refused',
    'wrong keys  1',
    'next        holdfast doctor node web',
    '            holdfast node unlock web --key FILE --key FILE',
  ])
})

test('an incident that came again is told once, and of nodes by their names', () => {
  const incidents = [`node ${id('c3')} asked`, `node ${id('c3')} asked`, 'a canary']
  const findings = examine(nodeRules, {
    ...{ node: node('web'), nodes: peers, now },
    report: { ok: true, value: report({ incidents }) },
  })
  const told = findings.find(({ layer }) => layer === 'incidents')?.text
  assert.equal(told, 'node c3 asked (2 times); a canary')
})

test('the doctor says what the node itself says of its ways', async () => {
  const facts = { node: node('web', { phase: 'locked' }), nodes: peers, now }
  const findings = examine(nodeRules, {
    ...facts,
    report: { ok: true, value: locked },
    locked: state({ failed: [tang] }),
  })
  const vault = findings.find(({ layer }) => layer === 'vault')
  assert.equal(vault?.state, 'failed')
  assert.match(vault.text, /http:\/\/tang1: seal\.unreachable: refused/)
  await requireCommands(findings)
})
