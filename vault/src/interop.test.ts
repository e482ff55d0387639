import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { isFault, parseJsonObject, Secret } from '@holdfast/base'
import { startSwtpm } from '@holdfast/base/swtpm-fixture'
import { createPins, parsePolicy } from '@holdfast/seal'
import { adoptVault } from './adopt.ts'
import { bindVault, editVault, regenVault } from './bind.ts'
import {
  exportToken,
  format,
  importToken,
  readMetadata,
  removeToken,
  testPassphrase,
  type VolumeRef,
} from './cryptsetup.ts'
import { type Bench, clevis, digest, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { maintainVault } from './maintain.ts'
import { passVault } from './pass.ts'
import { rehearseVault } from './rehearse.ts'
import { reportVault } from './report.ts'
import { unbindVault } from './unbind.ts'
import { unlockVault } from './unlock.ts'

describe('volumes shared with clevis', () => {
  let bench: Bench
  let servers: Tang[]
  before(async () => {
    bench = await makeBench()
    servers = [
      await bench.tang({ curve: 'P-521' }),
      await bench.tang({ curve: 'P-384' }),
      await bench.tang({ curve: 'P-256' }),
    ]
  })
  after(async () => await bench[Symbol.asyncDispose]())

  async function boundByUs(name: string, policy = tangPolicy(servers, 2)): Promise<VolumeRef> {
    const volume = await bench.volume({ name })
    using secret = Secret.copy(passphrase)
    await bindVault(bench.deps, volume, policy, { passphrase: secret })
    return volume
  }

  async function boundByClevis(name: string, pin: string, config: unknown): Promise<VolumeRef> {
    const volume = await bench.volume({ name })
    const args = ['luks', 'bind', '-f', '-k', '-', '-d', volume.device, pin, JSON.stringify(config)]
    await theirs(args, passphrase)
    return volume
  }

  async function theirs(args: readonly string[], input?: string): Promise<string> {
    const result = await clevis(args, input === undefined ? {} : { input })
    assert.equal(result.code, 0, `clevis ${args.join(' ')}: ${result.stderr}`)
    return result.text
  }

  async function opensWith(volume: VolumeRef, text: string, keyslot: number): Promise<boolean> {
    using secret = Secret.copy(text)
    return await testPassphrase(volume, secret, keyslot)
  }

  for (const index of [0, 1, 2]) {
    it(`clevis does everything with our binding to tang number ${index}`, async () => {
      const server = servers[index] as Tang
      const volume = await boundByUs(`ours-${index}.img`, tangPolicy([server]))
      const { device } = volume
      assert.equal(
        (await theirs(['luks', 'list', '-d', device])).trim(),
        `1: tang '{"url":"${server.url}"}'`,
      )
      const shown = await theirs(['luks', 'pass', '-d', device, '-s', '1'])
      assert.equal(await opensWith(volume, shown, 1), true)
      await theirs(['luks', 'unlock', '-d', device, '-t', '1'])
      await theirs(['luks', 'report', '-q', '-d', device, '-s', '1'])
      await theirs(['luks', 'regen', '-q', '-d', device, '-s', '1'])
      assert.equal(await opensWith(volume, shown, 1), false)
      using renewed = await passVault(bench.deps, volume, 1)
      assert.equal(await testPassphrase(volume, renewed, 1), true)
      const other = servers[(index + 1) % 3] as Tang
      const config = JSON.stringify({ url: other.url })
      await theirs(['luks', 'edit', '-d', device, '-s', '1', '-c', config])
      assert.equal((await unlockVault(bench.deps, volume)).keyslot, 1)
      await theirs(['luks', 'unbind', '-f', '-d', device, '-s', '1'])
      const { keyslots, tokens } = await readMetadata(volume)
      assert.deepEqual([[...keyslots.keys()], tokens.size], [[0], 0])
    })
  }

  it('clevis opens our thresholds, with null pins and nested', async () => {
    const configs = servers.map(({ config }) => config)
    const flat = { t: 2, pins: { tang: configs.slice(0, 2), null: [{}] } }
    const nested = {
      t: 2,
      pins: { tang: [configs[0]], sss: [{ t: 1, pins: { tang: configs.slice(1) } }] },
    }
    const five = { t: 3, pins: { tang: [...configs, ...configs.slice(0, 2)] } }
    for (const [name, config] of Object.entries({ flat, nested, five })) {
      const volume = await boundByUs(`sss-${name}.img`, parsePolicy('sss', config))
      const { device } = volume
      await theirs(['luks', 'unlock', '-d', device, '-t', '1'])
      const shown = await theirs(['luks', 'pass', '-d', device, '-s', '1'])
      assert.equal(await opensWith(volume, shown, 1), true)
      const listing = await listVault(bench.deps, volume)
      assert.deepEqual(listing.slots[1]?.policy?.config, config)
    }
  })

  it('takes care again of a token that clevis regen has rewritten', async () => {
    const volume = await boundByUs('rewritten.img', tangPolicy(servers.slice(0, 1)))
    using secret = Secret.copy(passphrase)
    await adoptVault(bench.deps, volume, { passphrase: secret })
    await theirs(['luks', 'regen', '-q', '-d', volume.device, '-s', '1'])
    assert.equal((await listVault(bench.deps, volume)).slots[1]?.owner, 'clevis')
    assert.deepEqual((await maintainVault(bench.deps, volume)).readopted, [1])
    assert.equal((await listVault(bench.deps, volume)).slots[1]?.owner, 'holdfast')
    await theirs(['luks', 'unlock', '-d', volume.device, '-t', '1'])
  })

  it('does everything with a binding of clevis', async () => {
    const [first] = servers as [Tang]
    const volume = await boundByClevis('theirs.img', 'tang', first.config)
    const { device } = volume
    const { slots } = await listVault(bench.deps, volume)
    assert.deepEqual([slots[1]?.owner, slots[1]?.policy?.config], ['clevis', first.config])
    using shown = await passVault(bench.deps, volume, 1)
    assert.equal(await testPassphrase(volume, shown, 1), true)
    assert.equal((await unlockVault(bench.deps, volume)).keyslot, 1)
    assert.equal((await reportVault(bench.deps, volume))[0]?.rotated, false)
    assert.equal((await rehearseVault(bench.deps, volume)).ways[0]?.proof.state, 'proven')
    const renewed = await regenVault(bench.deps, volume, 1)
    assert.equal(await testPassphrase(volume, shown), false)
    await theirs(['luks', 'unlock', '-d', device, '-t', `${renewed.keyslot}`])
    const edited = await editVault(
      bench.deps,
      volume,
      renewed.keyslot ?? -1,
      tangPolicy(servers, 2),
    )
    await theirs(['luks', 'unlock', '-d', device, '-t', `${edited.keyslot}`])
    using secret = Secret.copy(passphrase)
    await unbindVault(bench.deps, volume, edited.keyslot ?? -1, { passphrase: secret, force: true })
    const { keyslots, tokens } = await readMetadata(volume)
    assert.deepEqual([[...keyslots.keys()], tokens.size], [[0], 0])
  })

  it('reads thresholds that clevis made', async () => {
    const config = { t: 2, pins: { tang: servers.map(({ config: own }) => own) } }
    const volume = await boundByClevis('their-sss.img', 'sss', config)
    const [, slot] = (await listVault(bench.deps, volume)).slots
    assert.deepEqual(slot?.policy, { pin: 'sss', config })
    const result = await regenVault(bench.deps, volume, 1)
    await theirs(['luks', 'unlock', '-d', volume.device, '-t', `${result.keyslot}`])
  })

  it('reads tokens without encrypted_key, with more members, and two at once', async () => {
    const [first, second] = servers as [Tang, Tang]
    const volume = await boundByClevis('odd.img', 'tang', first.config)
    const token = await exportToken(volume, 0)
    const jwe = parseJsonObject(JSON.stringify(token.jwe), 'the jwe')
    delete jwe.encrypted_key
    await importToken(volume, 0, { ...token, jwe, note: { by: 'somebody' } }, true)
    assert.equal((await unlockVault(bench.deps, volume, { keyslot: 1 })).keyslot, 1)
    const args = ['luks', 'bind', '-f', '-k', '-', '-d', volume.device, 'tang']
    await theirs([...args, JSON.stringify(second.config)], passphrase)
    const { ways } = await rehearseVault(bench.deps, volume)
    assert.deepEqual(
      ways.map(({ keyslot, proof }) => [keyslot, proof.state]),
      [
        [1, 'proven'],
        [2, 'proven'],
      ],
    )
    await theirs([...args, JSON.stringify(second.config)], passphrase)
    assert.deepEqual((await listVault(bench.deps, volume)).duplicates, [[2, 3]])
    using secret = Secret.copy(passphrase)
    await adoptVault(bench.deps, volume, { passphrase: secret })
    assert.deepEqual((await exportToken(volume, 0)).note, { by: 'somebody' })
  })

  it('ignores an orphan token and reports it', async () => {
    const [first] = servers as [Tang]
    const volume = await boundByClevis('orphan.img', 'tang', first.config)
    const token = await exportToken(volume, 0)
    await importToken(volume, 5, { ...token, keyslots: [] })
    const { orphans, slots } = await listVault(bench.deps, volume)
    assert.deepEqual(orphans, [{ token: 5, type: 'clevis', reason: 'it belongs to no keyslot' }])
    assert.equal(slots[1]?.token, 0)
    assert.equal((await unlockVault(bench.deps, volume)).keyslot, 1)
  })

  it('says so when a keyslot was changed without its token', async () => {
    const [first] = servers as [Tang]
    const volume = await boundByClevis('half.img', 'tang', first.config)
    const token = await exportToken(volume, 0)
    await theirs(['luks', 'regen', '-q', '-d', volume.device, '-s', '1'])
    // What an interrupted clevis regen leaves behind: the new passphrase beside the old token.
    await removeToken(volume, 0)
    await importToken(volume, 0, token)
    await assert.rejects(unlockVault(bench.deps, volume), (error) =>
      isFault(error, 'vault.binding_stale'),
    )
    const { ways } = await rehearseVault(bench.deps, volume)
    assert.deepEqual(
      [ways[0]?.proof.state, ways[0]?.problem],
      ['failed', 'the sealed passphrase opens, but not this keyslot'],
    )
  })

  it('works beside an Argon2id slot and with a detached header', async () => {
    const image = await bench.image('data.img')
    const volume = { device: image.device, header: `${bench.path}/header.img` }
    using secret = Secret.copy(passphrase)
    const derivation = { kind: 'argon2id', iterations: 4, memoryKiB: 65536, parallel: 1 } as const
    await format(volume, secret, { derivation })
    const data = await digest(volume.device)
    const policy = tangPolicy(servers.slice(0, 1))
    await bindVault(bench.deps, volume, policy, { passphrase: secret })
    assert.equal((await unlockVault(bench.deps, volume)).keyslot, 1)
    const result = await regenVault(bench.deps, volume, 1)
    await theirs(['luks', 'unlock', '-d', volume.header, '-t', `${result.keyslot}`])
    const before = await digest(volume.header)
    using wrong = Secret.copy('wrong')
    await assert.rejects(
      bindVault(bench.deps, volume, tangPolicy(servers, 2), { passphrase: wrong }),
    )
    assert.deepEqual([await digest(volume.header), await digest(volume.device)], [before, data])
  })

  it('shares a TPM binding with clevis', async () => {
    await using tpm = await startSwtpm()
    const pins = createPins({ tcti: tpm.tcti })
    const deps = { ...bench.deps, pins }
    const environment = { TPM2TOOLS_TCTI: tpm.tcti }
    const volume = await bench.volume({ name: 'tpm.img' })
    using secret = Secret.copy(passphrase)
    const policy = parsePolicy('tpm2', { pcr_bank: 'sha256', pcr_ids: '7' })
    await bindVault(deps, volume, policy, { passphrase: secret })
    const opened = await clevis(['luks', 'unlock', '-d', volume.device, '-t', '1'], { environment })
    assert.equal(opened.code, 0, opened.stderr)
    const bind = ['luks', 'bind', '-f', '-k', '-', '-d', volume.device, 'tpm2']
    const config = '{"pcr_bank":"sha256","pcr_ids":"7","key":"rsa"}'
    const result = await clevis([...bind, config], { environment, input: passphrase })
    assert.equal(result.code, 0, result.stderr)
    assert.equal((await unlockVault(deps, volume, { keyslot: 2 })).keyslot, 2)
    const renewed = await regenVault(deps, volume, 2)
    const again = ['luks', 'unlock', '-d', volume.device, '-t', `${renewed.keyslot}`]
    assert.equal((await clevis(again, { environment })).code, 0)
  })
})
