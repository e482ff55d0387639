import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { agentFault } from './faults.ts'
import { factoryState } from './life-state.ts'
import { LockedApi } from './locked-api.ts'
import { UnlockProgress } from './unlock-progress.ts'

function locked() {
  const tried: string[] = []
  let now = 0
  const api = new LockedApi({
    node: 'n'.repeat(43),
    exchange: '',
    state: () => factoryState,
    progress: new UnlockProgress(systemClock),
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
  return { api, push, tried, pass: (time: number) => (now += time) }
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
