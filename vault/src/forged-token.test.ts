import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { isFault, isObject, type JsonObject, Secret } from '@holdfast/base'
import { formatPolicy, type Policy, parsePolicy, seal } from '@holdfast/seal'
import { bindVault, editVault, regenVault } from './bind.ts'
import { exportToken, importToken, type VolumeRef } from './cryptsetup.ts'
import { rekeyFleet } from './fleet.ts'
import { type Bench, digest, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { maintainVault } from './maintain.ts'
import { bindingToken } from './token.ts'

// Somebody who can write the disk but has no way in edits tokens: nothing in them may decide what the
// next passphrase is sealed to.

const untrusted = (error: unknown) => isFault(error, 'vault.token_untrusted')

describe('a token that somebody else wrote', () => {
  let bench: Bench
  let honest: Tang
  let second: Tang
  let evil: Tang
  before(async () => {
    bench = await makeBench()
    honest = await bench.tang()
    second = await bench.tang()
    evil = await bench.tang()
  })
  after(async () => await bench[Symbol.asyncDispose]())

  async function bound(name: string, policies: readonly Policy[]): Promise<VolumeRef> {
    const volume = await bench.volume({ name })
    using secret = Secret.copy(passphrase)
    for (const policy of policies)
      await bindVault(bench.deps, volume, policy, { passphrase: secret })
    return volume
  }

  /** Replaces keyslot 1's token by one sealed, with a passphrase of their own, to the attacker's server. */
  async function forge(volume: VolumeRef, wanted?: Policy): Promise<void> {
    using own = Secret.copy('whatever the attacker likes')
    const jwe = await seal(bench.pins, tangPolicy([evil]), own)
    const mark = { v: 1, purpose: 'automatic', generation: 1 } as const
    const more = wanted === undefined ? {} : { wanted: formatPolicy(wanted) }
    await importToken(volume, 0, bindingToken(1, jwe, { ...mark, ...more }), true)
  }

  async function urls(volume: VolumeRef): Promise<unknown[]> {
    const { slots } = await listVault(bench.deps, volume)
    return slots.flatMap(({ inspection }) => inspection?.url ?? [])
  }

  it('does not choose the policy of the next passphrase', async () => {
    const volume = await bound('regen.img', [tangPolicy([honest]), tangPolicy([second])])
    await forge(volume)
    const before = await digest(volume.device)
    using secret = Secret.copy(passphrase)
    await assert.rejects(regenVault(bench.deps, volume, 1), untrusted)
    await assert.rejects(regenVault(bench.deps, volume, 1, { passphrase: secret }), untrusted)
    const fleet = await rekeyFleet(bench.deps, { id: 'forged', volumes: [volume] })
    assert.equal(fleet.failed[0]?.fault.code, 'vault.token_untrusted')
    assert.equal(await digest(volume.device), before)
  })

  it('does not vouch for a key server', async () => {
    const volume = await bound('edit.img', [tangPolicy([honest])])
    await forge(volume)
    using secret = Secret.copy(passphrase)
    const unpinned = parsePolicy('tang', { url: evil.url })
    await assert.rejects(
      editVault(bench.deps, volume, 1, unpinned, { passphrase: secret }),
      (error) => isFault(error, 'seal.trust_required'),
    )
    const pinned = await editVault(bench.deps, volume, 1, tangPolicy([second]), {
      passphrase: secret,
    })
    assert.deepEqual([pinned.removed?.keyslot, await urls(volume)], [1, [second.url]])
  })

  it('does not say what is still to be bound', async () => {
    const volume = await bound('forged-mark.img', [tangPolicy([honest])])
    const token = await exportToken(volume, 0)
    const wider = parsePolicy('sss', {
      t: 1,
      pins: { tang: [honest.config, evil.config] },
    })
    const mark = { ...memberOf(token, 'holdfast'), wanted: formatPolicy(wider) }
    await importToken(volume, 0, { ...token, holdfast: mark }, true)
    const before = await digest(volume.device)
    const done = await maintainVault(bench.deps, volume)
    assert.deepEqual(done.completed, [])
    assert.equal(done.waiting[0]?.fault?.code, 'vault.token_untrusted')
    assert.equal(await digest(volume.device), before)
  })

  it('does not take the owner’s keyslot away', async () => {
    const volume = await bound('owner.img', [tangPolicy([honest])])
    using own = Secret.copy('whatever the attacker likes')
    const jwe = await seal(bench.pins, tangPolicy([evil]), own)
    const wider = parsePolicy('sss', { t: 1, pins: { tang: [honest.config, evil.config] } })
    const mark = { v: 1, purpose: 'automatic', generation: 1, wanted: formatPolicy(wider) } as const
    await importToken(volume, 5, bindingToken(0, jwe, mark))
    const done = await maintainVault(bench.deps, volume)
    assert.deepEqual([done.completed, done.waiting[0]?.keyslot], [[], 0])
  })

  it('does not swap a holder’s key', async () => {
    const volume = await bound('holder.img', [tangPolicy([honest])])
    using secret = Secret.copy(passphrase)
    const holder = (): Policy => {
      const key = generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' })
      return parsePolicy('person', { name: 'alice', key })
    }
    const unproven = { passphrase: secret, unproven: true, purpose: 'recovery' } as const
    await bindVault(bench.deps, volume, holder(), unproven)
    using own = Secret.copy('whatever the attacker likes')
    const jwe = await seal(bench.pins, holder(), own)
    const mark = { v: 1, purpose: 'recovery', generation: 1 } as const
    await importToken(volume, 1, bindingToken(2, jwe, mark), true)
    await assert.rejects(regenVault(bench.deps, volume, 2, unproven), untrusted)
  })

  it('is still believed when it opens its keyslot, whoever wrote it', async () => {
    const volume = await bound('true.img', [tangPolicy([honest])])
    const result = await regenVault(bench.deps, volume, 1)
    assert.equal(result.proof?.state, 'proven')
    assert.deepEqual(await urls(volume), [honest.url])
  })
})

function memberOf(token: JsonObject, name: string): JsonObject {
  const member = token[name]
  assert.ok(isObject(member))
  return member
}
