import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { agentFault } from './faults.ts'
import { factoryState, type GuardianSet, type LifeState } from './life-state.ts'
import { LockedApi } from './locked-api.ts'
import { UnlockProgress } from './unlock-progress.ts'

function locked(state: LifeState = factoryState) {
  const tried: string[] = []
  const progress = new UnlockProgress(systemClock)
  let now = 0
  const api = new LockedApi({
    node: 'n'.repeat(43),
    exchange: '',
    state: () => state,
    progress,
    network: async () => 'mutual-tls',
    keys: 'file',
    recovery: async () => [],
    push: (sealed) => {
      tried.push(sealed)
      throw agentFault('agent.push_refused', 'the key opens nothing')
    },
    onIncident: () => undefined,
    monotonic: () => now,
  })
  const push = (source: string) => api.unlock(source, { sealed: 'e30.a.a.a.a' })
  return { api, push, progress, tried, pass: (time: number) => (now += time) }
}

test('one stranger with a whole network of IPv6 uses up no more than its own pushes', async () => {
  const { api, push, tried, pass } = locked()
  for (let host = 1; host <= 6; host += 1)
    await assert.rejects(push(`2001:db8:0:1::${host}`), { code: 'agent.push_refused' })
  for (let host = 7; host <= 60; host += 1)
    await assert.rejects(push(`2001:db8:0:1:ffff::${host}`), { code: 'agent.push_rate' })
  await assert.rejects(push('2001:db8:0:2::1'), { code: 'agent.push_refused' })
  await assert.rejects(push('192.0.2.1'), { code: 'agent.push_refused' })
  assert.equal(tried.length, 8)
  for (let host = 1; host <= 60; host += 1) await api.state(`2001:db8:0:1::${host}`)
  await assert.rejects(api.state('2001:db8:0:1::61'), { code: 'agent.push_rate' })
  pass(60_000)
  await assert.rejects(push('2001:db8:0:1::1'), { code: 'agent.push_refused' })
})

test('what a locked node needs names the guardians and the pins that lack, and never nobody', async () => {
  const ids = ['a', 'b', 'c'].map((name) => name.padEnd(43, '0'))
  const [a = '', b = '', c = ''] = ids
  const set = {
    ...{ epoch: 1, threshold: 2 },
    guardians: ids.map((node) => ({ node, addresses: [] })),
  } as unknown as GuardianSet // the rest is not read here
  const { api, progress } = locked({ ...factoryState, phase: 'locked', set })
  const needs = async () => (await api.state('192.0.2.1')).needs.slice(0, -1)
  const peer = (label: string, state: 'opened' | 'failed') =>
    progress.note({ path: [0, 0], pin: 'peer', label, state })
  const server = (state: 'opened' | 'failed') =>
    progress.note({ path: [1], pin: 'tang', label: 'http://tang1.example.com', state })
  progress.begin()
  peer(a, 'opened')
  peer(b, 'failed')
  server('failed')
  const pins = 'these pins, which failed: tang http://tang1.example.com'
  assert.deepEqual(await needs(), [
    `1 more of these guardians: ${b.slice(0, 12)}, ${c.slice(0, 12)}`,
    pins,
  ])
  peer(b, 'opened')
  assert.deepEqual(await needs(), [pins])
  server('opened')
  assert.deepEqual(await needs(), [
    'the end of this attempt: enough of its guardians have answered',
  ])
})

test('a locked node with key servers alone names those that failed', async () => {
  const { api, progress } = locked({ ...factoryState, phase: 'locked' })
  const first = async () => (await api.state('192.0.2.1')).needs[0]
  assert.equal(await first(), 'its key servers')
  progress.begin()
  progress.note({ path: [], pin: 'tang', label: 'http://tang1.example.com', state: 'failed' })
  assert.equal(await first(), 'these pins, which failed: tang http://tang1.example.com')
})
