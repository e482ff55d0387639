import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LockedState } from '@holdfast/protocol'
import type { NodeReport } from '@holdfast/protocol/frames'
import { type DirectSeen, directRules } from './doctor-direct.ts'
import { examine } from './doctor-findings.ts'
import { broken, id, no, node, now, report, requireCommands, yes } from './doctor-fixture.ts'
import { fleetRules } from './doctor-fleet.ts'
import { type LocalSeen, localRules } from './doctor-local.ts'
import { type NodeSeen, nodeRules } from './doctor-node.ts'
import type { Node } from './node-place.ts'

// The doctor's judgement of nodes and fleets, from observations alone.

const guardians = [node('a1'), node('b2'), node('c3')]
const gone = (name: string) => node(name, { connected: false })
const temporary = {
  ways: [
    { keyslot: 1, purpose: 'automatic', label: 'temporary', state: 'proven' } as const,
    { keyslot: 0, purpose: 'recovery', label: '', state: 'not_tried' } as const,
  ],
}

interface NodeCase {
  what: string
  node?: Partial<Node>
  report?: Partial<NodeReport>
  nodes?: readonly Node[]
  seen?: Partial<NodeSeen>
  layer?: string
  text?: RegExp
  next?: RegExp
  warns?: readonly string[]
}

const nodeCases: readonly NodeCase[] = [
  { what: 'all is well' },
  {
    what: 'it has no session',
    node: { connected: false, heardAt: now - 180_000 },
    layer: 'session',
    text: /last heard 3 min ago/,
    next: /doctor node --at 192\.0\.2\.1 --pin/,
  },
  {
    what: 'it has no session, and another port than most',
    node: { connected: false, peerPort: 31_877 },
    layer: 'session',
    next: /doctor node --at 192\.0\.2\.1:31877 --pin/,
  },
  {
    what: 'it is connected and silent',
    seen: { report: no('cli.command_pending') },
    layer: 'session',
    text: /does not answer/,
  },
  {
    what: 'stuck in enrolment: it waits for guardians',
    node: { phase: 'enrolling', guardians: [] },
    report: { phase: 'enrolling', ways: [] },
    layer: 'phase',
    text: /enrolment has not ended/,
    next: /node list/,
  },
  {
    what: 'a rescued node says why',
    report: { phase: 'rescue', lastErrors: ['no space'] },
    layer: 'phase',
    text: /no space/,
    next: /node logs web/,
  },
  { what: 'it has left', report: { phase: 'left' }, layer: 'phase', next: /node remove/ },
  {
    what: 'locked and frozen',
    node: { frozen: true },
    report: { phase: 'locked' },
    layer: 'freeze',
    text: /stays locked/,
    next: /node unfreeze web/,
    warns: ['phase'],
  },
  { what: 'open and frozen', node: { frozen: true }, warns: ['freeze'] },
  {
    what: 'the unlock fails: not enough peers',
    report: { phase: 'locked' },
    nodes: [node('a1'), gone('b2'), gone('c3')],
    layer: 'guardians',
    text: /1 too few; not there or unhealthy: b2, c3/,
    next: /doctor node b2/,
    warns: ['phase'],
  },
  {
    what: 'the unlock fails: the first node, and fewer peers than genesis needs',
    node: { guardians: [] },
    report: { phase: 'locked', ...temporary },
    nodes: [],
    seen: { genesisPeers: 5 },
    layer: 'guardians',
    text: /5 nodes are needed, there are 1/,
    next: /node unlock web --genesis --key/,
    warns: ['phase'],
  },
  {
    what: 'the first node, open',
    node: { guardians: [] },
    report: temporary,
    nodes: [],
    warns: ['guardians'],
  },
  {
    what: 'open, and would not come back',
    nodes: [node('a1'), gone('b2'), gone('c3')],
    layer: 'guardians',
    text: /would not come back/,
  },
  {
    what: 'its way in failed because guardians are away: they are the cause',
    seen: { rehearsal: { ok: true, value: { ways: [{ keyslot: 1, state: 'failed' }] } } },
    nodes: [node('a1'), gone('b2'), gone('c3')],
    layer: 'guardians',
    text: /1 too few; not there or unhealthy: b2, c3/,
    next: /doctor node b2/,
    warns: ['ways in'],
  },
  { what: 'at its margin', nodes: [node('a1'), node('b2'), gone('c3')], warns: ['margin'] },
  {
    what: 'a guardian has lost its share',
    seen: {
      rehearsal: {
        ok: true,
        value: {
          ways: [{ keyslot: 1, state: 'proven' }],
          guardians: [{ guardian: id('c3'), healthy: false }],
        },
      },
    },
    warns: ['guardians'],
  },
  {
    what: 'two guardians have lost their shares',
    seen: {
      rehearsal: {
        ok: true,
        value: { ways: [], guardians: [{ guardian: id('c3') }, { guardian: id('a1') }] },
      },
    },
    layer: 'guardians',
    text: /c3, a1/,
  },
  {
    what: 'a way in has failed',
    seen: { rehearsal: { ok: true, value: { ways: [{ keyslot: 1, state: 'failed' }] } } },
    layer: 'ways in',
    text: /keyslot 1/,
    next: /node rehearse web/,
  },
  {
    what: 'its header has no automatic way',
    report: { ways: [] },
    layer: 'ways in',
    next: /node unlock web --key/,
  },
  {
    what: 'locked with enough guardians',
    report: { phase: 'locked', lastErrors: ['held for 5 min'] },
    layer: 'vault',
    text: /held for 5 min/,
    next: /node logs web/,
    warns: ['phase'],
  },
  {
    what: 'locked by panic 1',
    report: { phase: 'locked', held: 'panic 1' },
    layer: 'vault',
    text: /held: panic 1/,
    next: /node unlock web --key/,
    warns: ['phase'],
  },
  {
    what: 'services do not start after a reboot',
    report: { services: { web: 'failed', db: 'running' } },
    layer: 'services',
    text: /not running: web/,
    next: /node restart web web/,
  },
  {
    what: 'a health check fails',
    report: { health: { answers: 'failing', disk: 'passing' } },
    layer: 'health',
    text: /failing: answers/,
    next: /node logs web/,
  },
  { what: 'a health check waits', report: { health: { answers: 'waiting' } }, warns: ['health'] },
  { what: 'a refused service', report: { services: { web: 'refused' } }, warns: ['services'] },
  { what: 'a canary', report: { incidents: ['canary: read'] }, warns: ['incidents'] },
  {
    what: 'a re-share that failed',
    node: {
      reshare: { state: 'failed', cause: 'loss', epoch: 2, since: now, reason: 'nobody left' },
    },
    warns: ['re-share'],
  },
]

function nodeSeen(each: NodeCase): NodeSeen {
  const it = node('web', { ...each.node, report: report(each.report) })
  return { node: it, nodes: [it, ...(each.nodes ?? guardians)], now, ...each.seen }
}

for (const each of nodeCases) {
  test(`node: ${each.what}`, async () => {
    const findings = examine(nodeRules, nodeSeen(each))
    const found = broken(findings)
    assert.equal(found?.layer, each.layer, found?.text)
    assert.match(found?.text ?? '', each.text ?? /.*/)
    assert.match(found?.next?.[0] ?? '', each.next ?? /.*/)
    const warned = findings.filter(({ state }) => state === 'warning').map(({ layer }) => layer)
    assert.deepEqual(warned, each.warns ?? [])
    await requireCommands(findings)
  })
}

test('node: a machine that came back older is sent to its log, for releases are not managed', () => {
  const release = examine(nodeRules, nodeSeen({ what: '' })).find(
    ({ layer }) => layer === 'release',
  )
  assert.equal(release?.state, 'not looked at')
  assert.match(release?.text ?? '', /holdfast node logs web/)
})

const lockedState: LockedState = {
  ...{ v: 1, node: id('web'), name: 'web', phase: 'locked', epoch: 2, needs: [] },
  ...{ network: 'mutual-tls', keys: 'file', wrongKeys: 0, lastErrors: ['why'], exchange: 'pem' },
  recovery: [{ keyslot: 0, label: '', sealed: 'a.b.c.d.e' }],
}
const direct: DirectSeen = {
  ...{ at: 'web:9998', host: 'web', enrolmentAt: 'web:9999' },
  ...{ enrolment: no('ECONNREFUSED'), peer: yes },
}
const state = (changes: Partial<LockedState> = {}) => ({
  ok: true as const,
  value: { ...lockedState, ...changes },
})
const progress = (answered: number, missing: number) => ({
  answered: Array.from({ length: answered }, () => id('a')),
  missing: Array.from({ length: missing }, () => ({ guardian: id('b'), reason: 'no route' })),
  ...{ threshold: 2, attempts: 7 },
})

const directCases: readonly [string, Partial<DirectSeen>, string | undefined, RegExp][] = [
  ['neither port answers', { peer: no('ETIMEDOUT') }, 'enrolment', /firewall.*9999\/tcp/s],
  [
    'a new machine',
    { peer: no('ECONNREFUSED'), enrolment: yes },
    'enrolment',
    /waits to be enrolled/,
  ],
  ['it tells nothing', { state: no('link.reply_invalid') }, 'state', /reply_invalid/],
  ['open', { state: state({ phase: 'open', lastErrors: [] }) }, undefined, /./],
  [
    'too few guardians',
    { state: state({ progress: progress(1, 2) }) },
    'guardians',
    /1 of 3 answered, 2 needed, attempt 7.*no route/,
  ],
  ['enough guardians', { state: state({ progress: progress(2, 1) }) }, 'vault', /locked: why/],
  ['wrong keys were pushed', { state: state({ wrongKeys: 3 }) }, 'vault', /3 wrong keys/],
  [
    'in rescue',
    { state: state({ phase: 'rescue', needs: ['a new disk'] }) },
    'state',
    /a new disk/,
  ],
]
for (const [what, changes, layer, text] of directCases) {
  test(`directly: ${what}`, async () => {
    const findings = examine(directRules, { ...direct, ...changes })
    assert.equal(broken(findings)?.layer, layer)
    assert.match(broken(findings)?.text ?? 'fine', text)
    await requireCommands(findings)
  })
}

const copies = [
  { name: 'boot-state.a', version: 4 },
  { name: 'boot-state.b', version: 4 },
]
const life: NonNullable<LocalSeen['life']> = {
  ...{ name: 'web', phase: 'open', lastErrors: [], genesis: false, threshold: 2 },
}
const reach = (who: string, tcp: LocalSeen['guardians'][number]['tcp'] = yes) => ({
  ...{ who, address: `${who}:9998`, tcp },
})
const volume = (
  type: 'luks2' | 'none',
  purposes: readonly string[] = ['automatic', 'recovery'],
) => ({
  ok: true as const,
  value: {
    device: '/dev/sdb',
    type,
    ways: purposes.map((purpose, keyslot) => ({ keyslot, purpose, label: '' })),
  },
})
const local: LocalSeen = {
  ...{ directory: '/var/lib/holdfast', copies, keys: 'present', running: true, life },
  ...{ volume: volume('luks2'), coordinators: [reach('c')] },
  guardians: [reach('a1'), reach('b2'), reach('c3')],
}
const away = no('ETIMEDOUT')

const localCases: readonly [string, Partial<LocalSeen>, string | undefined, RegExp][] = [
  ['all is well', {}, undefined, /./],
  ['no node', { keys: 'absent', copies: [{ name: 'boot-state.a' }] }, 'directory', /never run/],
  ['keys are lost', { keys: 'absent' }, 'keys', /Put it back/],
  ['the disk was moved', { keys: 'elsewhere' }, 'keys', /TPM that is not here/],
  ['keys are damaged', { keys: 'damaged' }, 'keys', /cannot be read/],
  [
    'no copy is good',
    { copies: [{ name: 'boot-state.a', problem: 'torn' }, { name: 'boot-state.b' }] },
    'boot state',
    /torn; boot-state.b: is missing/,
  ],
  ['the agent does not run', { running: false }, 'agent', /no agent runs/],
  [
    'never enrolled: port 9999',
    { life: { ...life, phase: 'factory' } },
    'phase',
    /port 9999.*firewall/,
  ],
  [
    'enrolment waits',
    { life: { ...life, phase: 'enrolling', task: 'enrol:await_guardians' } },
    'phase',
    /waits for guardians/,
  ],
  [
    'enrolment refused',
    { life: { ...life, phase: 'enrolling', task: 'enrol:refused', lastErrors: ['ext4'] } },
    'phase',
    /refused \(ext4\)/,
  ],
  ['another disk', { volume: volume('none') }, 'disk', /no LUKS2 header/],
  ['no disk', { volume: no('ENOENT') }, 'disk', /ENOENT/],
  ['no automatic way', { volume: volume('luks2', ['recovery']) }, 'disk', /nothing opens it/],
  [
    'guardians are away',
    { guardians: [reach('a1'), reach('b2', away), reach('c3', away)] },
    'guardians',
    /1 of 3 can be reached, 2 are needed/,
  ],
  [
    'genesis after a power cut',
    { guardians: [], life: { ...life, phase: 'locked', genesis: true } },
    'guardians',
    /holders open it/,
  ],
  [
    'locked all the same',
    { life: { ...life, phase: 'locked', lastErrors: ['frozen'] } },
    'vault',
    /frozen/,
  ],
]
for (const [what, changes, layer, text] of localCases) {
  test(`on the console: ${what}`, async () => {
    const findings = examine(localRules, { ...local, ...changes })
    assert.equal(broken(findings)?.layer, layer, broken(findings)?.text)
    assert.match(broken(findings)?.text ?? 'fine', text)
    await requireCommands(findings)
  })
}

test('on the console: an absent coordinator and one bad copy are warnings, for the vault opens without', () => {
  const [first] = copies
  assert.ok(first)
  const findings = examine(localRules, {
    ...local,
    coordinators: [reach('c', away)],
    copies: [first, { name: 'boot-state.b', problem: 'torn' }],
  })
  const warned = findings.filter(({ state: each }) => each === 'warning').map(({ layer }) => layer)
  assert.deepEqual(warned, ['boot state', 'coordinator'])
})

test('fleet: every layer is looked at, and names the nodes it is about', async () => {
  const nodes = [
    node('web', { report: report({ services: { web: 'failed' } }) }),
    node('a1', { report: report(), guardians: [] }),
    gone('b2'),
    gone('c3'),
    node('old', { phase: 'left', connected: false }),
  ]
  const findings = examine(fleetRules, { nodes, now })
  const of = (layer: string) => findings.find((each) => each.layer === layer)
  assert.equal(of('nodes')?.text, '4, and 1 that left or were wiped')
  assert.match(of('sessions')?.text ?? '', /none with b2, c3/)
  assert.equal(of('guardians')?.state, 'failed')
  assert.match(of('services')?.text ?? '', /web: not running: web/)
  assert.match(of('blackout')?.text ?? '', /people must open web, b2, c3/)
  await requireCommands(findings)
  const apart = examine(fleetRules, {
    nodes: [
      node('web', { report: report({ services: { web: 'failed' } }) }),
      node('shop', { report: report({ services: { cart: 'failed' } }) }),
      ...guardians,
    ],
    now,
  })
  assert.match(
    apart.find(({ layer }) => layer === 'services')?.text ?? '',
    /^web: not running: web; shop: not running: cart$/,
  )
  const frozen = examine(fleetRules, { nodes: [node('web', { frozen: true }), ...guardians], now })
  assert.match(frozen.at(-1)?.text ?? '', /people must open web$/)
  const empty = examine(fleetRules, { nodes: [], now })
  assert.match(empty[0]?.next?.[0] ?? '', /--genesis/)
})
