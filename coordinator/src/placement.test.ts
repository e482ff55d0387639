import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  chooseGuardians,
  hasRoom,
  isBelowMargin,
  loadToBe,
  mostWards,
  type NodeView,
  type NodeViews,
  strandedByLeaving,
  withoutNode,
} from './placement.ts'

const view = (node: string, over: Partial<NodeView> = {}): NodeView => ({
  node,
  name: `name-${node}`,
  domain: undefined,
  phase: 'open',
  frozen: false,
  connected: true,
  heardAt: 0,
  epoch: 0,
  threshold: 0,
  guardians: [],
  waiting: false,
  genesis: false,
  leaving: false,
  sharedWithLeaver: false,
  rebooting: false,
  ...over,
})

const viewsOf = (views: readonly NodeView[]): NodeViews =>
  new Map(views.map((each) => [each.node, each]))

const ids = Array.from({ length: 14 }, (_, index) => `n${index}`)
const nodeArbitrary = (node: string) =>
  fc
    .record({
      domain: fc.constantFrom(undefined, 'a', 'b', 'c', 'd'),
      phase: fc.constantFrom('open' as const, 'open' as const, 'locked' as const, 'left' as const),
      frozen: fc.boolean().map((each) => each && node.endsWith('3')),
      connected: fc.constantFrom(true, true, true, false),
      leaving: fc.constantFrom(false, false, false, true),
      rebooting: fc.constantFrom(false, false, false, true),
      guardians: fc.subarray(ids.filter((id) => id !== node)),
    })
    .map((over) => view(node, over))
const fleetArbitrary = fc
  .tuple(nodeArbitrary('n0'), ...ids.slice(1).map(nodeArbitrary))
  .map(([ward, ...others]) => ({ ward, fleet: [ward, ...others] }))
const countArbitrary = fc.integer({ min: 2, max: 7 })

const usable = (each: NodeView) =>
  (each.phase === 'open' || each.phase === 'locked') &&
  !each.frozen &&
  !each.leaving &&
  !each.rebooting &&
  each.connected

test('only members that answer are chosen, never the ward, and as many as there are up to the count', () => {
  fc.assert(
    fc.property(fleetArbitrary, countArbitrary, ({ ward, fleet }, count) => {
      const chosen = chooseGuardians(ward, fleet, { count })
      const able = fleet.filter((each) => each !== ward && usable(each)).map(({ node }) => node)
      assert.equal(new Set(chosen).size, chosen.length)
      assert.ok(chosen.every((id) => able.includes(id)))
      assert.equal(chosen.length, Math.min(count, able.length))
    }),
  )
})

test('no two guardians share a failure domain while another one is free', () => {
  fc.assert(
    fc.property(fleetArbitrary, countArbitrary, ({ ward, fleet }, count) => {
      const chosen = chooseGuardians(ward, fleet, { count })
      const domainOf = (id: string) => fleet.find(({ node }) => node === id)?.domain ?? ''
      const perDomain = (list: readonly string[]) => {
        const counts = new Map<string, number>()
        for (const id of list) counts.set(domainOf(id), (counts.get(domainOf(id)) ?? 0) + 1)
        return counts
      }
      const able = perDomain(
        fleet.filter((each) => each !== ward && usable(each)).map(({ node }) => node),
      )
      const taken = perDomain(chosen)
      const most = Math.max(0, ...taken.values())
      for (const [domain, there] of able) {
        const used = taken.get(domain) ?? 0
        // Whoever still has somebody free has at most one less than the fullest.
        assert.ok(used === there || used >= most - 1, `${domain}: ${used} of ${there}, ${most}`)
      }
    }),
  )
})

test('a set that is as good as any stays, and the order of candidates does not matter', () => {
  fc.assert(
    fc.property(fleetArbitrary, countArbitrary, fc.nat(), ({ ward, fleet }, count, turn) => {
      const first = chooseGuardians(ward, fleet, { count })
      const turned = [...fleet.slice(turn % 14), ...fleet.slice(0, turn % 14)]
      assert.deepEqual(chooseGuardians(ward, turned, { count }), first)
      const load = new Map(first.map((id) => [id, 100]))
      const again = chooseGuardians({ ...ward, guardians: first }, fleet, { count }, { load })
      assert.deepEqual(again, first)
    }),
  )
})

test('who guards fewer is taken first, and who failed lately only when nobody else is there', () => {
  const fleet = ['a', 'b', 'c', 'd'].map((id) => view(id))
  const load = new Map([
    ['a', 3],
    ['b', 1],
    ['c', 2],
  ])
  const choose = (count: number, avoid: string[]) =>
    chooseGuardians(view('w'), fleet, { count }, { load, avoid: new Set(avoid) })
  assert.deepEqual(choose(2, []), ['b', 'd'])
  assert.deepEqual(choose(2, ['b', 'd']), ['a', 'c'])
  assert.deepEqual(choose(3, ['b', 'd', 'a']).includes('c'), true)
})

test('a thousand wards are spread evenly over their guardians', () => {
  const fleet = Array.from({ length: 100 }, (_, index) => view(`node-${index}`))
  const load = new Map<string, number>()
  for (let ward = 0; ward < 1000; ward += 1)
    for (const id of chooseGuardians(view(`ward-${ward}`), fleet, { count: 5 }, { load }))
      load.set(id, (load.get(id) ?? 0) + 1)
  assert.deepEqual([Math.min(...load.values()), Math.max(...load.values())], [50, 50])
})

test('a domain of few nodes takes the wards of a large fleet until it is full, and keeps those it has', () => {
  const small = ['b-1', 'b-2'].map((id) => view(id, { domain: 'b' }))
  const large = Array.from({ length: 40 }, (_, index) => view(`a-${index}`, { domain: 'a' }))
  const fleet = [...small, ...large]
  const load = new Map<string, number>()
  const isSmall = (id: string) => id.startsWith('b')
  const isFull = () => small.every(({ node }) => load.get(node) === mostWards)
  for (let ward = 0; ward < 3000; ward += 1) {
    const room = !isFull()
    const chosen = chooseGuardians(view(`ward-${ward}`), fleet, { count: 3 }, { load })
    assert.deepEqual([chosen.length, chosen.some(isSmall)], [3, room])
    for (const id of chosen) load.set(id, (load.get(id) ?? 0) + 1)
  }
  assert.equal(isFull(), true)
  const guarded = view('ward-0', { guardians: ['a-1', 'a-2', 'b-1'] })
  assert.deepEqual(chooseGuardians(guarded, fleet, { count: 3 }, { load }).filter(isSmall), ['b-1'])
})

test('a set under way takes room before anybody has reported it, and no place twice', () => {
  const full = Array.from({ length: mostWards - 2 }, (_, index) =>
    view(`ward-${index}`, { guardians: ['a', 'b'] }),
  )
  const views = viewsOf([...['a', 'b', 'c'].map((id) => view(id)), ...full])
  const underWay = [
    { ward: 'ward-0', guardians: ['a', 'c'] },
    { ward: 'x', guardians: ['a', 'b'] },
    { ward: 'y', guardians: ['a', 'c'] },
  ]
  const load = loadToBe(views, underWay)
  assert.deepEqual(
    ['a', 'b', 'c'].map((id) => [load.get(id), hasRoom(id, load)]),
    [
      [mostWards, false],
      [mostWards - 1, true],
      [2, true],
    ],
  )
  const choose = (count: number) => chooseGuardians(view('z'), views.values(), { count }, { load })
  assert.deepEqual([choose(3).includes('a'), hasRoom('a', loadToBe(views, []))], [false, true])
})

const ward = (name: string, guardians: string[], over: Partial<NodeView> = {}) =>
  view(name, { guardians, epoch: 1, threshold: 2, ...over })

test('a reboot that takes somebody below threshold plus margin is found, with names', () => {
  const views = viewsOf([
    ward('w', ['a', 'b', 'c']),
    ward('x', ['a', 'b', 'c', 'd']),
    ward('a', ['b', 'c', 'd']),
    ...['b', 'c', 'd'].map((id) => view(id)),
  ])
  assert.deepEqual(withoutNode(views, 'a', { margin: 1 }), [
    { node: 'w', name: 'name-w', live: 2, needed: 3 },
  ])
  assert.deepEqual(withoutNode(views, 'a', { margin: 0 }), [])
  // d is away already: x stands at its margin now, and a would not come back by itself with b gone.
  const worse = viewsOf([
    ...views.values(),
    view('d', { connected: false }),
    view('b', { rebooting: true }),
  ])
  assert.deepEqual(
    withoutNode(worse, 'a', { margin: 1 }).map(({ node, live }) => [node, live]),
    [
      ['w', 1],
      ['x', 1],
      ['a', 1],
    ],
  )
  assert.equal(isBelowMargin(ward('x', ['a', 'b', 'c', 'd']), worse, { margin: 1 }), true)
})

test('a node that only the holders can open again does not reboot by itself', () => {
  const views = viewsOf([view('first', { genesis: true }), view('pins')])
  assert.deepEqual(
    withoutNode(views, 'first', { margin: 1 }).map(({ node }) => node),
    ['first'],
  )
  assert.deepEqual(withoutNode(views, 'pins', { margin: 1 }), [])
})

test('a node may leave as long as enough others can guard its wards', () => {
  const rules = { count: 3, threshold: 2, margin: 1 }
  const fleet = [ward('w', ['a', 'b', 'c']), ...['a', 'b', 'c'].map((id) => view(id))]
  assert.deepEqual(strandedByLeaving(viewsOf(fleet), 'a', rules), [
    { node: 'w', name: 'name-w', live: 2, needed: 3 },
  ])
  assert.deepEqual(strandedByLeaving(viewsOf([...fleet, view('d')]), 'a', rules), [])
  const frozen = viewsOf([...fleet, view('d', { frozen: true })])
  assert.equal(strandedByLeaving(frozen, 'a', rules).length, 1)
})
