import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { chooseGuardians, type NodeView } from './placement.ts'
import {
  type Decision,
  decide,
  type HeldKey,
  type History,
  needs,
  orderPatience,
  type Reshare,
  type ReshareRules,
  retryAfter,
  type Survey,
} from './reshare-plan.ts'

const minute = 60_000
const day = 24 * 60 * minute
const rules: ReshareRules = {
  ...{ count: 3, threshold: 2, margin: 1, genesisPeers: 3 },
  ...{ refresh: 30 * day, lost: 60 * minute },
}

const view = (node: string, over: Partial<NodeView> = {}): NodeView => ({
  ...{ node, name: node, domain: undefined, phase: 'open', frozen: false, connected: true },
  ...{ heardAt: 0, epoch: 0, threshold: 0, guardians: [], waiting: false, genesis: false },
  ...{ leaving: false, sharedWithLeaver: false, rebooting: false },
  ...over,
})

const quiet: History = { active: false, doneAt: 0, failures: 0, failedAt: 0 }

function surveyOf(views: readonly NodeView[], over: Partial<Survey> = {}): Survey {
  return {
    ...{ now: day, since: 0, rules, history: () => quiet },
    views: new Map(views.map((each) => [each.node, each])),
    ...over,
  }
}

const dueIn = (views: readonly NodeView[], over: Partial<Survey> = {}) =>
  needs(surveyOf(views, over)).map(({ ward, cause }) => `${ward} ${cause}`)

const guards = (guardians: string[], over: Partial<NodeView> = {}) => ({
  ...{ guardians, epoch: 1, threshold: 2 },
  ...over,
})
const fleet = (over: Partial<Record<string, Partial<NodeView>>> = {}) => [
  view('w', { ...guards(['a', 'b', 'c']), ...over.w }),
  ...['a', 'b', 'c', 'd'].map((id) => view(id, { genesis: true, ...over[id] })),
]

test('who has guardians that answer stays where it is', () => {
  assert.deepEqual(
    dueIn(fleet()).filter((each) => each.startsWith('w ')),
    [],
  )
})

test('every cause is found, and only when the move would help', () => {
  const due = (over: Parameters<typeof fleet>[0], survey: Partial<Survey> = {}) =>
    dueIn(fleet(over), survey).filter((each) => each.startsWith('w '))
  const gone = { connected: false }
  assert.deepEqual(due({ a: { ...gone, heardAt: day - 61 * minute } }), ['w loss'])
  assert.deepEqual(due({ a: { ...gone, heardAt: day - 59 * minute } }), [])
  // A coordinator that has only just started cannot know who is silent.
  assert.deepEqual(due({ a: gone }, { since: day - minute }), [])
  assert.deepEqual(due({ a: { frozen: true } }), ['w loss'])
  assert.deepEqual(due({ a: { phase: 'wiped' } }), ['w loss'])
  // Without a fourth there is nobody to take the place.
  assert.deepEqual(due({ a: { frozen: true }, d: { frozen: true } }), [])
  assert.deepEqual(due({ a: { leaving: true }, w: { sharedWithLeaver: true } }), ['w leave'])
  assert.deepEqual(due({ w: { threshold: 3 } }), ['w rules'])
  assert.deepEqual(due({ w: { guardians: ['a', 'b', 'c', 'd'] } }), ['w rules'])
  assert.deepEqual(due({ w: { guardians: ['a', 'b'] } }), ['w join'])
  const away = { ...gone, heardAt: day }
  assert.deepEqual(due({ w: { guardians: ['a', 'b'] }, b: away }), [])
  const old = { history: () => ({ ...quiet, doneAt: day - 30 * day }) }
  assert.deepEqual(due({}, old), ['w schedule'])
  assert.deepEqual(due({ c: away }, old), [])
  for (const over of [{ frozen: true }, { connected: false }, { phase: 'locked' as const }])
    assert.deepEqual(due({ w: over, a: { frozen: true } }), [])
})

test('first sets go at once, the end of genesis waits for peers, and an attempt that failed for its time', () => {
  const genesis = ['a', 'b', 'c'].map((id) => view(id, { genesis: true }))
  assert.deepEqual(dueIn(genesis), [])
  const four = [...genesis, view('d', { genesis: true })]
  assert.deepEqual(dueIn(four), ['a genesis', 'b genesis', 'c genesis', 'd genesis'])
  const waiting = view('n', { phase: 'enrolling', waiting: true })
  assert.deepEqual(dueIn([...genesis, waiting]), ['n first'])
  const failures = (count: number) => ({
    history: () => ({ ...quiet, failures: count, failedAt: day }),
  })
  assert.deepEqual(dueIn([waiting], { ...failures(1), now: day + retryAfter(1) - 1 }), [])
  assert.deepEqual(dueIn([waiting], { ...failures(1), now: day + retryAfter(1) }), ['n first'])
  assert.ok(retryAfter(2) > retryAfter(1))
  assert.equal(retryAfter(1000), 60 * minute)
})

test('whoever is closest to not opening comes first', () => {
  const silent = { connected: false, heardAt: 0 }
  const views = [
    view('x', guards(['a', 'b', 'e'])),
    view('y', guards(['a', 'b', 'c'])),
    view('a', silent),
    view('b', silent),
    ...['c', 'd', 'e', 'f'].map((id) =>
      view(id, guards(['c', 'd', 'e', 'f'].filter((g) => g !== id))),
    ),
    view('z', guards(['a', 'c', 'd'])),
  ]
  assert.deepEqual(dueIn(views), ['x loss', 'y loss', 'z loss'])
})

test('who was to be moved for better company is moved when a guardian is lost meanwhile', () => {
  const planned: Reshare = {
    ...{ id: 'r', ward: 'w', cause: 'join', state: 'planned', epoch: 0, threshold: 0 },
    ...{ guardians: [], since: 0 },
  }
  const decided = (views: readonly NodeView[]) => {
    const known = new Map(views.map((each) => [each.node, each]))
    const ward = known.get('w')
    const choose = () => ['b', 'c', 'd']
    const facts = { now: day, ward, views: known, rules, keys: [], free: true, due: true }
    return decide(planned, { ...facts, nextEpoch: 2, choose })?.to
  }
  assert.equal(decided(fleet()), 'planned', 'nobody would be better')
  const [ward, , ...others] = fleet()
  assert.ok(ward)
  assert.equal(decided([ward, ...others]), 'preparing', 'one was removed')
  assert.equal(decided(fleet({ a: { phase: 'wiped' } })), 'preparing', 'one was wiped')
})

test('an order to a ward that is away waits, and one that nobody carries out is given up', () => {
  const ordered: Reshare = {
    ...{ id: 'r', ward: 'w', cause: 'loss', state: 'ordered', epoch: 2, threshold: 2, since: 0 },
    guardians: ['b', 'c', 'd'],
  }
  const at = (
    now: number,
    over: Partial<Record<string, Partial<NodeView>>>,
    more: Partial<Reshare> = {},
  ) => {
    const views = new Map(fleet(over).map((each) => [each.node, each]))
    const facts = { now, views, ward: views.get('w'), keys: [], rules, free: false, due: false }
    const decision = decide({ ...ordered, ...more }, { ...facts, nextEpoch: 3, choose: () => [] })
    return decision?.to === 'failed' ? decision.code : decision?.to
  }
  assert.equal(at(orderPatience - 1, {}), undefined)
  assert.equal(at(orderPatience, {}), 'reshare.ward_slow')
  assert.equal(at(orderPatience, { w: { connected: false } }), undefined)
  assert.equal(at(orderPatience, { w: { phase: 'locked' } }), undefined)
  assert.equal(at(1, { d: { frozen: true } }), 'reshare.guardian_gone')
  assert.equal(at(1, {}, { code: 'agent.internal' }), 'reshare.ward_refused')
  assert.equal(at(1, { w: { epoch: 3 } }), 'reshare.overtaken')
  assert.equal(at(1, { w: { epoch: 2, guardians: ['d', 'c', 'b'] } }), 'retiring')
  // The same epoch with other guardians is not the set that was ordered.
  assert.equal(at(1, { w: { epoch: 2 } }), 'reshare.overtaken')
  assert.equal(at(1, { w: { phase: 'wiped' } }), 'reshare.ward_gone')
  const late = { state: 'failed' } as const
  assert.equal(at(1, { w: { epoch: 2, guardians: ['d', 'c', 'b'] } }, late), 'retiring')
  assert.equal(at(1, {}, late), undefined)
})

// The whole of it under faults: rows, guardians and wards as simple as they can be, messages that are
// lost, doubled and late, and decisions made from an old look by one instance after another one acted.

interface Guard {
  /** By ward: epochs with keys, and how far they were retired. */
  keys: Map<string, Set<number>>
  retired: Map<string, number>
}
type Row = Reshare & { order: boolean }
interface KeyRow extends HeldKey {
  ward: string
}

class World {
  now = 1_000 * day
  readonly ids = ['a', 'b', 'c', 'd', 'e', 'f']
  readonly guards = new Map<string, Guard>()
  /** What each ward has on its disk, and what it has reported. */
  readonly disks = new Map<string, { epoch: number; guardians: readonly string[] }>()
  readonly views = new Map<string, NodeView>()
  rows: Row[] = []
  keys: KeyRow[] = []
  readonly orders = new Map<string, string>()
  dead: string | undefined
  #count = 0
  readonly #random: () => number
  faulty = true
  /** Sets are made anew all the time as long as there are faults. */
  get rules(): ReshareRules {
    return this.faulty ? { ...rules, refresh: 15 * minute } : rules
  }
  late: (() => void)[] = []

  constructor(random: () => number) {
    this.#random = random
    for (const id of this.ids) {
      this.guards.set(id, { keys: new Map(), retired: new Map() })
      this.views.set(id, view(id, { genesis: true, heardAt: this.now }))
    }
  }

  chance(of: number): boolean {
    return this.faulty && this.#random() < of
  }

  /** Arrives once, twice, later, or not at all. */
  send(message: () => void): void {
    if (this.chance(0.3)) return
    if (this.chance(0.2)) this.late.push(message)
    message()
    if (this.chance(0.2)) message()
  }

  alive(id: string): boolean {
    return id !== this.dead
  }

  /** Decisions of one instance, from what it sees. */
  look(): { row: Row; decision: Decision }[] {
    const history = (ward: string): History => {
      const own = this.rows.filter((row) => row.ward === ward)
      const failed = own.filter(
        ({ state, epoch }) => state === 'failed' && epoch > (this.views.get(ward)?.epoch ?? 0),
      )
      return {
        active: own.some(({ state }) => ['preparing', 'ordered', 'retiring'].includes(state)),
        doneAt: Math.max(
          0,
          ...own.filter(({ state }) => state === 'done').map(({ since }) => since),
        ),
        failures: failed.length,
        failedAt: Math.max(0, ...failed.map(({ since }) => since)),
      }
    }
    const { now, views } = this
    const due = needs({ now, since: 0, views, rules: this.rules, history })
    for (const { ward, cause } of due) {
      const present = this.rows.some(
        (row) => row.ward === ward && !['done', 'failed'].includes(row.state),
      )
      if (present) continue
      this.#count += 1
      const fresh = { id: `r${this.#count}`, ward, cause, state: 'planned' as const, order: false }
      this.rows.push({ ...fresh, epoch: 0, threshold: 0, guardians: [], since: now })
    }
    return this.rows.flatMap((row) => {
      const ward = views.get(row.ward)
      const used = this.rows.filter((each) => each.ward === row.ward).map(({ epoch }) => epoch)
      const decision = decide(row, {
        ...{ now, ward, views, rules, free: true },
        due: due.some((need) => need.ward === row.ward),
        keys: this.keys.filter((key) => key.ward === row.ward),
        nextEpoch: Math.max(ward?.epoch ?? 0, ...used) + 1,
        choose: () => (ward === undefined ? [] : chooseGuardians(ward, views.values(), rules)),
      })
      return decision === undefined ? [] : [{ row: { ...row }, decision }]
    })
  }

  apply({ row: seen, decision }: { row: Row; decision: Decision }): void {
    const row = this.rows.find(({ id }) => id === seen.id)
    if (row === undefined || row.state !== seen.state) return
    const { ward, epoch } = row
    switch (decision.to) {
      case 'dropped':
        this.rows.splice(this.rows.indexOf(row), 1)
        return
      case 'planned':
        row.message = decision.message
        return
      case 'preparing': {
        const { guardians, threshold } = decision
        const used = this.rows.filter((each) => each.ward === ward).map((each) => each.epoch)
        const next = Math.max(this.views.get(ward)?.epoch ?? 0, ...used) + 1
        Object.assign(row, { guardians, threshold, epoch: next })
        for (const guardian of guardians)
          this.keys.push({ ward, guardian, epoch: next, state: 'asked' })
        break
      }
      case 'ordered':
        row.order = true
        for (const guardian of row.guardians)
          assert.ok(
            this.keys.some(
              (key) =>
                key.ward === ward &&
                key.epoch === epoch &&
                key.guardian === guardian &&
                key.state === 'made',
            ),
            'a ward is told when every key is there',
          )
        break
      case 'retiring':
        for (const key of this.keys)
          if (key.ward === ward && key.epoch < epoch) key.state = 'retiring'
        break
      case 'failed':
      case 'done':
        break
      default:
        decision satisfies never
    }
    row.state = decision.to
    row.since = this.now
  }

  /** What open rows make the instances say. */
  errands(): void {
    for (const key of [...this.keys]) {
      if (!this.alive(key.guardian)) continue
      if (key.state === 'asked') this.send(() => this.prepare(key))
      if (key.state === 'retiring') this.send(() => this.retire(key))
    }
    for (const row of this.rows)
      if (row.state === 'ordered' && this.alive(row.ward)) {
        const { ward, epoch, guardians, threshold } = row
        this.send(() => this.move(ward, epoch, guardians, threshold))
      }
    for (const message of this.late.splice(0)) if (!this.chance(0.5)) message()
  }

  prepare(key: KeyRow): void {
    const { keys, retired } = this.guard(key.guardian)
    if (key.epoch <= (retired.get(key.ward) ?? 0)) {
      this.send(() => {
        if (key.state === 'asked') Object.assign(key, { state: 'refused' })
      })
      return
    }
    keys.set(key.ward, (keys.get(key.ward) ?? new Set()).add(key.epoch))
    this.send(() => {
      if (key.state === 'asked') key.state = 'made'
    })
  }

  retire(key: KeyRow): void {
    const { keys, retired } = this.guard(key.guardian)
    for (const epoch of keys.get(key.ward) ?? [])
      if (epoch <= key.epoch) keys.get(key.ward)?.delete(epoch)
    retired.set(key.ward, Math.max(key.epoch, retired.get(key.ward) ?? 0))
    this.send(() => {
      this.keys = this.keys.filter((each) => each !== key)
    })
  }

  move(ward: string, epoch: number, guardians: readonly string[], threshold: number): void {
    const text = [...guardians, threshold].join()
    assert.equal(this.orders.get(`${ward} ${epoch}`) ?? text, text, 'one epoch is one order')
    this.orders.set(`${ward} ${epoch}`, text)
    if (epoch > (this.disks.get(ward)?.epoch ?? 0)) {
      // Proving it needs the guardians: without them the ward goes on trying, with its old set.
      if (guardians.filter((id) => this.opens(id, ward, epoch)).length < threshold) return
      this.disks.set(ward, { epoch, guardians })
    }
    this.report(ward)
  }

  report(ward: string): void {
    this.send(() => {
      const disk = this.disks.get(ward)
      const known = this.views.get(ward)
      if (disk !== undefined && known !== undefined)
        this.views.set(ward, { ...known, ...disk, threshold: rules.threshold })
    })
  }

  opens(guardian: string, ward: string, epoch: number): boolean {
    return this.alive(guardian) && this.guard(guardian).keys.get(ward)?.has(epoch) === true
  }

  guard(id: string): Guard {
    const found = this.guards.get(id)
    assert.ok(found)
    return found
  }

  requireOpenable(): void {
    for (const [ward, { epoch, guardians }] of this.disks) {
      const live = guardians.filter((id) => this.opens(id, ward, epoch)).length
      assert.ok(live >= rules.threshold, `${ward} opens at epoch ${epoch} with ${live}`)
    }
  }

  /** A minute passes; two instances look, the second with what it saw before the first one acted. */
  tick(): void {
    this.now += minute
    for (const id of this.ids) {
      const known = this.views.get(id)
      assert.ok(known)
      const connected = this.alive(id) && !this.chance(0.1)
      this.views.set(id, { ...known, connected, heardAt: connected ? this.now : known.heardAt })
      if (this.alive(id)) this.report(id)
    }
    const [one, two] = [this.look(), this.look()]
    const acted = this.chance(0.2) ? one.slice(0, Math.floor(one.length / 2)) : one // killed in between
    for (const move of [...acted, ...two]) this.apply(move)
    this.errands()
    this.requireOpenable()
  }
}

/** mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

test('through lost, doubled and late messages and instances that die, every ward opens at any moment, and all move in the end', () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 60 }), (seed, deathAt) => {
      const world = new World(randomOf(seed))
      for (let round = 0; round < 60; round += 1) {
        // A guardian dies for good, once everybody is guarded by three.
        if (round >= deathAt && world.dead === undefined && world.disks.size === world.ids.length)
          world.dead = 'c'
        world.tick()
      }
      world.faulty = false
      for (let round = 0; round < 240; round += 1) world.tick()
      for (const id of world.ids) {
        if (!world.alive(id)) continue
        const disk = world.disks.get(id)
        assert.ok(disk, `${id} is guarded`)
        if (world.dead !== undefined) assert.equal(disk.guardians.includes(world.dead), false)
        // Nobody who can be reached has a key of an older epoch.
        for (const [guardian, { keys }] of world.guards)
          if (world.alive(guardian))
            assert.deepEqual(
              [...(keys.get(id) ?? [])].filter((epoch) => epoch < disk.epoch),
              [],
            )
      }
      const open = world.rows.filter(
        ({ state, ward }) => !['done', 'failed'].includes(state) && world.alive(ward),
      )
      assert.deepEqual(open, [])
    }),
    { numRuns: 300 },
  )
})
