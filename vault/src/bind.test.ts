import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import { readInventory } from './apply.ts'
import { bindVault, editVault, regenVault } from './bind.ts'
import { readMetadata, testPassphrase } from './cryptsetup.ts'
import { type Bench, clevis, digest, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { openVault } from './state.ts'
import { unlockVault } from './unlock.ts'

describe('bind, unlock, regen and edit', () => {
  let bench: Bench
  let servers: Tang[]
  before(async () => {
    bench = await makeBench()
    servers = [await bench.tang(), await bench.tang(), await bench.tang({ curve: 'P-256' })]
  })
  after(async () => await bench[Symbol.asyncDispose]())

  it('binds so that both it and clevis open the volume', async () => {
    const volume = await bench.volume({ name: 'both.img' })
    using secret = Secret.copy(passphrase)
    const bound = await bindVault(bench.deps, volume, tangPolicy(servers.slice(0, 1)), {
      passphrase: secret,
    })
    assert.equal(bound.keyslot, 1)
    assert.equal(bound.proof?.state, 'proven')
    const repeated = { passphrase: secret }
    await assert.rejects(
      bindVault(bench.deps, volume, tangPolicy(servers.slice(0, 1)), repeated),
      (error) => isFault(error, 'vault.already_bound'),
    )
    const opened = await unlockVault(bench.deps, volume)
    assert.equal(opened.keyslot, 1)
    for (const name of ['--key-file', '../x', '', 'a b']) {
      await assert.rejects(unlockVault(bench.deps, volume, { name }), {
        code: 'vault.name_invalid',
      })
    }
    const shown = await clevis(['luks', 'pass', '-d', volume.device, '-s', '1'])
    assert.equal(shown.code, 0, shown.stderr)
    using revealed = Secret.copy(shown.text)
    assert.equal(await testPassphrase(volume, revealed, 1), true)
    assert.equal(revealed.length, 43)
  })

  it('regenerates: the old passphrase is dead and the generation rises', async () => {
    const volume = await bench.volume({ name: 'regen.img' })
    using secret = Secret.copy(passphrase)
    await bindVault(bench.deps, volume, tangPolicy(servers, 2), { passphrase: secret })
    const old = await clevis(['luks', 'pass', '-d', volume.device, '-s', '1'])
    const result = await regenVault(bench.deps, volume, 1)
    assert.deepEqual([result.keyslot, result.removed?.keyslot, result.mode], [2, 1, 'beside'])
    using dead = Secret.copy(old.text)
    assert.equal(await testPassphrase(volume, dead), false)
    const inventory = await readInventory(await openVault(bench.deps, volume))
    assert.deepEqual(
      inventory.slots.map(({ keyslot, owner, purpose }) => [keyslot, owner, purpose]),
      [
        [0, 'foreign', 'unknown'],
        [2, 'holdfast', 'automatic'],
      ],
    )
    assert.equal(inventory.slots[1]?.mark?.generation, 2)
    assert.equal((await unlockVault(bench.deps, volume)).keyslot, 2)
  })

  it('edits the policy, refuses an unchanged one', async () => {
    const volume = await bench.volume({ name: 'edit.img' })
    using secret = Secret.copy(passphrase)
    await bindVault(bench.deps, volume, tangPolicy(servers.slice(0, 1)), { passphrase: secret })
    const same = editVault(bench.deps, volume, 1, tangPolicy(servers.slice(0, 1)))
    await assert.rejects(same, (error) => isFault(error, 'vault.unchanged'))
    const result = await editVault(bench.deps, volume, 1, tangPolicy(servers, 1))
    const list = await clevis(['luks', 'list', '-d', volume.device])
    assert.match(list.text, new RegExp(`^${result.keyslot}: sss `))
  })

  it('falls back to replacing the token in place where two do not fit', async () => {
    const volume = await bench.volume({ name: 'small.img', metadataSize: 16 * 1024 })
    using secret = Secret.copy(passphrase)
    const wide = tangPolicy([...servers, ...servers.slice(0, 1)], 2)
    await bindVault(bench.deps, volume, wide, { passphrase: secret })
    const result = await regenVault(bench.deps, volume, 1)
    assert.equal(result.mode, 'in_place')
    assert.equal((await unlockVault(bench.deps, volume)).keyslot, result.keyslot)
    const { keyslots, tokens } = await readMetadata(volume)
    assert.deepEqual([[...keyslots.keys()], [...tokens.keys()]], [[0, 2], [0]])
  })

  it('refuses a policy that does not fit before it touches the header', async () => {
    const volume = await bench.volume({ name: 'large.img', metadataSize: 16 * 1024 })
    using secret = Secret.copy(passphrase)
    const before = await digest(volume.device)
    const huge = tangPolicy(
      Array.from({ length: 9 }, () => servers[0] as Tang),
      5,
    )
    await assert.rejects(bindVault(bench.deps, volume, huge, { passphrase: secret }), (error) =>
      isFault(error, 'vault.header_area_full'),
    )
    assert.equal(await digest(volume.device), before)
  })

  it('puts the header back byte for byte when a step fails', async () => {
    const volume = await bench.volume({ name: 'fails.img' })
    using secret = Secret.copy(passphrase)
    await bindVault(bench.deps, volume, tangPolicy(servers.slice(0, 1)), { passphrase: secret })
    const before = await digest(volume.device)
    const wrong = Secret.copy('not it')
    await assert.rejects(
      bindVault(bench.deps, volume, tangPolicy(servers.slice(1, 2)), { passphrase: wrong }),
      (error) => isFault(error, 'vault.passphrase_wrong'),
    )
    assert.equal(await digest(volume.device), before)
  })
})
