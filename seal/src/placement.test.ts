import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isFault } from '@holdfast/base'
import fc from 'fast-check'
import { type PlacementNode, type PlacementServer, planPlacement } from './placement.ts'
import { formatPolicy } from './policy.ts'

const regions = ['ams', 'fra', 'lon', 'nyc', 'sgp']

function server(region: string, index = 1): PlacementServer {
  return { url: `http://${region}-${index}`, thp: `thumbprint-of-${region}-${index}`, region }
}

const five = regions.map((region) => server(region))

/** A ring: each region is near its neighbours, so "nearest three" differs from region to region. */
const ring = Object.fromEntries(
  regions.map((from, i) => [
    from,
    Object.fromEntries(
      regions.map((to, j) => [to, Math.min(Math.abs(i - j), regions.length - Math.abs(i - j))]),
    ),
  ]),
)

const estate = fc.record({
  servers: fc
    .uniqueArray(fc.tuple(fc.constantFrom(...regions), fc.integer({ min: 1, max: 3 })), {
      minLength: 1,
      maxLength: 12,
      selector: ([region, index]) => `${region}${index}`,
    })
    .map((pairs) => pairs.map(([region, index]) => server(region, index))),
  nodes: fc
    .uniqueArray(fc.tuple(fc.string({ minLength: 1 }), fc.constantFrom(...regions)), {
      maxLength: 20,
      selector: ([name]) => name,
    })
    .map((pairs) => pairs.map(([name, region]): PlacementNode => ({ name, region }))),
  m: fc.integer({ min: 1, max: 5 }),
  slack: fc.integer({ min: 0, max: 4 }),
  oncePerRegion: fc.boolean(),
})

function countByRegion(servers: readonly PlacementServer[]): number[] {
  return regions.map((region) => servers.filter((one) => one.region === region).length)
}

/** Whether m servers with at most `most` of any region exist at all: counting, not choosing. */
function exists(servers: readonly PlacementServer[], m: number, most: number): boolean {
  return countByRegion(servers).reduce((sum, count) => sum + Math.min(count, most), 0) >= m
}

describe('placement of nodes on key servers', () => {
  it('gives every node m distinct servers, and refuses exactly when there are not enough', () => {
    fc.assert(
      fc.property(estate, ({ servers, nodes, m, slack, oncePerRegion }) => {
        const t = Math.max(1, m - slack)
        const possible =
          m <= servers.length && (nodes.length === 0 || exists(servers, m, oncePerRegion ? 1 : m))
        const plan = () =>
          planPlacement(servers, nodes, {
            servers: m,
            threshold: t,
            oncePerRegion,
            distances: ring,
          })
        if (!possible) {
          assert.throws(plan, (error) => isFault(error, 'seal.placement_impossible'))
          return
        }
        const placement = plan()
        assert.equal(placement.nodes.length, nodes.length)
        for (const { servers: chosen } of placement.nodes) {
          assert.equal(new Set(chosen.map(({ url }) => url)).size, m)
          if (oncePerRegion) assert.ok(Math.max(...countByRegion(chosen)) <= 1)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('survives the loss of any one region wherever some choice does, and names the node otherwise', () => {
    fc.assert(
      fc.property(estate, ({ servers, nodes, m, slack }) => {
        fc.pre(m <= servers.length)
        const t = Math.max(1, m - slack)
        const request = { servers: m, threshold: t, distances: ring }
        const couldSurvive = m > t && exists(servers, m, m - t)
        for (const { servers: chosen, fatalRegions } of planPlacement(servers, nodes, request)
          .nodes) {
          const counts = countByRegion(chosen)
          const fatal = regions.filter((_, i) => (counts[i] ?? 0) > 0 && m - (counts[i] ?? 0) < t)
          assert.deepEqual(fatalRegions, fatal)
          if (couldSurvive) assert.deepEqual(fatal, [])
        }
      }),
      { numRuns: 500 },
    )
  })

  it('takes no server while a nearer one of a region with room stands unused', () => {
    fc.assert(
      fc.property(estate, ({ servers, nodes, m, slack, oncePerRegion }) => {
        const t = Math.max(1, m - slack)
        const most = oncePerRegion ? 1 : m
        fc.pre(m <= servers.length && exists(servers, m, most))
        const safe = Math.min(most, m - t)
        const cap = exists(servers, m, safe) ? safe : most
        const request = { servers: m, threshold: t, oncePerRegion, distances: ring }
        const { nodes: placed } = planPlacement(servers, nodes, request)
        for (const { node, servers: chosen } of placed) {
          const home = nodes.find(({ name }) => name === node)?.region ?? ''
          const distance = (one: PlacementServer) => ring[home]?.[one.region] ?? Number.NaN
          const farthest = Math.max(...chosen.map(distance))
          const unused = servers.filter((one) => !chosen.includes(one))
          for (const one of unused.filter((candidate) => distance(candidate) < farthest)) {
            assert.equal(chosen.filter(({ region }) => region === one.region).length, cap)
          }
        }
      }),
      { numRuns: 300 },
    )
  })

  it('does not depend on the order of servers or nodes', () => {
    fc.assert(
      fc.property(estate, fc.integer(), ({ servers, nodes, m }, seed) => {
        fc.pre(m <= servers.length)
        const shuffled = <T>(items: readonly T[]) =>
          items
            .map((item, i) => ({ item, key: Math.sin(seed + i * 7919) }))
            .sort((a, b) => a.key - b.key)
            .map(({ item }) => item)
        const request = { servers: m, threshold: 1 }
        assert.deepEqual(
          planPlacement(shuffled(servers), shuffled(nodes), request),
          planPlacement(servers, nodes, request),
        )
      }),
      { numRuns: 200 },
    )
  })

  it('spreads nodes evenly over servers that are equally near', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 5 }), (count, m) => {
        const nodes = Array.from({ length: count }, (_, i) => ({ name: `n${i}`, region: 'mars' }))
        const { load } = planPlacement(five, nodes, { servers: m, threshold: 1 })
        assert.ok(Math.max(...Object.values(load)) - Math.min(...Object.values(load)) <= 1)
      }),
    )
  })

  it('binds five regions to their nearest three, two of which open', () => {
    const nodes = regions.map((region) => ({ name: `node-${region}`, region }))
    const request = { servers: 3, threshold: 2, oncePerRegion: true, distances: ring }
    const placement = planPlacement(five, nodes, request)
    assert.deepEqual(
      placement.nodes.map(({ node, servers }) => [
        node,
        servers.map(({ region }) => region).sort(),
      ]),
      [
        ['node-ams', ['ams', 'fra', 'sgp']],
        ['node-fra', ['ams', 'fra', 'lon']],
        ['node-lon', ['fra', 'lon', 'nyc']],
        ['node-nyc', ['lon', 'nyc', 'sgp']],
        ['node-sgp', ['ams', 'nyc', 'sgp']],
      ],
    )
    assert.ok(placement.nodes.every(({ fatalRegions }) => fatalRegions.length === 0))
    assert.deepEqual(Object.values(placement.load), [3, 3, 3, 3, 3])
  })

  it('prefers measured latencies to regions and puts thumbprint and advertisement in the policy', () => {
    const servers = [{ ...server('ams'), adv: { payload: 'x' } }, server('fra'), server('lon')]
    const latency = { 'http://lon-1': 2, 'http://ams-1': 9 }
    const request = { servers: 2, threshold: 1 }
    const [placed] = planPlacement(servers, [{ name: 'a', region: 'fra', latency }], request).nodes
    assert.ok(placed)
    assert.deepEqual(formatPolicy(placed.policy), {
      pin: 'sss',
      config: {
        t: 1,
        pins: {
          tang: [
            { url: 'http://lon-1', thp: 'thumbprint-of-lon-1' },
            { url: 'http://ams-1', thp: 'thumbprint-of-ams-1', adv: { payload: 'x' } },
          ],
        },
      },
    })
    assert.deepEqual(placed.fatalRegions, [])
  })

  it('names every node that cannot be placed, with the reason', () => {
    const nodes: PlacementNode[] = [
      { name: 'far', latency: { 'http://ams-1': 1 } },
      { name: 'fine', region: 'ams' },
      { name: 'lost' },
    ]
    assert.throws(
      () => planPlacement(five, nodes, { servers: 2, threshold: 1 }),
      (error) =>
        isFault(error, 'seal.placement_impossible') &&
        /far: it can reach 1 key servers in 1 regions and needs 2/.test(error.message) &&
        /lost: it has neither a region nor latencies/.test(error.message) &&
        !error.message.includes('fine'),
    )
  })

  it('refuses a shared key set listed as two servers, a server listed twice, and t above m', () => {
    const twin = { ...server('fra'), thp: server('ams').thp }
    const refuses = (servers: PlacementServer[], m: number, t: number, message: RegExp) =>
      assert.throws(
        () => planPlacement(servers, [], { servers: m, threshold: t }),
        (error) => isFault(error, 'seal.placement_impossible') && message.test(error.message),
      )
    refuses([server('ams'), twin], 1, 1, /list a shared set as one server/)
    refuses([server('ams'), server('ams')], 1, 1, /is listed twice/)
    refuses(five, 2, 3, /any 3 of 2/)
    refuses(five, 6, 1, /6 of 5/)
  })
})
