import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Secret } from '@holdfast/base'
import { parsePolicy, seal } from '@holdfast/seal'
import { backupPolicy } from './backup-policy.ts'
import { importToken } from './cryptsetup.ts'
import { backupHeader } from './header-backup.ts'
import { type Bench, bind, makeBench, makeHolders } from './header-fixture.ts'
import { policyText } from './inventory.ts'
import { bindingToken } from './token.ts'

let bench: Bench

before(async () => {
  bench = await makeBench()
})

after(async () => {
  await bench[Symbol.asyncDispose]()
})

test('a forged recovery token does not turn header backups to other holders', async () => {
  const volume = await bench.volume('forged')
  const deps = bench.deps()
  const { policy } = bench.holders
  assert.equal(await backupPolicy(deps, volume), undefined)
  await bind(volume, deps.pins, policy, 1, 'recovery')
  const chosen = await backupPolicy(deps, volume)
  assert.ok(chosen)
  await backupHeader(deps, volume, policy)
  assert.equal(policyText((await backupPolicy(deps, volume)) ?? policy), policyText(chosen))

  using own = Secret.copy('whatever the attacker likes')
  const attacker = makeHolders()
  const jwe = await seal(deps.pins, attacker.policy, own)
  const token = bindingToken(1, jwe, { v: 1, purpose: 'recovery', generation: 1 })
  await importToken(volume, 1, token, true)
  await assert.rejects(backupPolicy(deps, volume), { code: 'vault.holders_differ' })
  const meant = await backupPolicy(deps, volume, 1)
  assert.ok(meant, 'a slot that was just written here is believed')
  assert.notEqual(policyText(meant), policyText(chosen))

  await bind(volume, deps.pins, policy, 2, 'recovery')
  await bind(volume, deps.pins, parsePolicy('null', {}), 3, 'automatic')
  assert.equal(policyText((await backupPolicy(deps, volume)) ?? meant), policyText(chosen))
})
