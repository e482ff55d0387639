import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import { answerRecoveryRequest, parseRecoveryRequest } from '@holdfast/seal'
import { bindVault, regenVault } from './bind.ts'
import { exportToken, type VolumeRef } from './cryptsetup.ts'
import { altered, type Bench, clevis, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { maintainVault } from './maintain.ts'
import { applyAnswer, applyPassphrase, exportRequest } from './offline.ts'
import { passVault } from './pass.ts'

describe('recovery by a colleague beside the key servers', () => {
  let bench: Bench
  let server: Tang
  const technician = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  before(async () => {
    bench = await makeBench()
    server = await bench.tang()
  })
  after(async () => await bench[Symbol.asyncDispose]())

  async function bound(name: string): Promise<VolumeRef> {
    const volume = await bench.volume({ name })
    const config = JSON.stringify(server.config)
    const args = ['luks', 'bind', '-f', '-k', '-', '-d', volume.device, 'tang', config]
    assert.equal((await clevis(args, { input: passphrase })).code, 0)
    return volume
  }

  async function answered(request: string): Promise<string> {
    return await answerRecoveryRequest(bench.pins, parseRecoveryRequest(request))
  }

  it('opens a volume that clevis bound, with nothing but the request crossing', async () => {
    const volume = await bound('site.img')
    await server.stop()
    const exported = await exportRequest(bench.deps, volume, technician.publicKey)
    const token = await exportToken(volume, 0)
    const { sealed, technician: key, ...rest } = parseRecoveryRequest(exported.request)
    assert.deepEqual(rest, { holdfast: 'recovery-request', version: 1 })
    assert.equal(sealed.split('.')[0], (token.jwe as { protected: string }).protected)
    assert.equal('d' in key, false)
    await server.start()
    const answer = await answered(exported.request)
    await server.stop()
    const opened = await applyAnswer(bench.deps, volume, answer, {
      request: exported.request,
      technician: technician.privateKey,
    })
    assert.deepEqual([opened.keyslot, opened.state], [1, 'tested'])
    const [, slot] = (await listVault(bench.deps, volume)).slots
    assert.equal(slot?.regenerate, 'its passphrase was recovered offline')
    await server.start()
    assert.deepEqual((await maintainVault(bench.deps, volume)).regenerated, [{ from: 1, to: 2 }])
  })

  it('takes the passphrase typed at the console', async () => {
    const volume = await bound('typed.img')
    using shown = await passVault(bench.deps, volume, 1)
    assert.equal((await applyPassphrase(bench.deps, volume, shown)).keyslot, 1)
    using wrong = Secret.copy('mistyped')
    await assert.rejects(applyPassphrase(bench.deps, volume, wrong), (error) =>
      isFault(error, 'vault.answer_wrong'),
    )
  })

  it('refuses an answer for another technician, another request or a slot since renewed', async () => {
    const volume = await bound('refused.img')
    const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const mine = await exportRequest(bench.deps, volume, technician.publicKey)
    const theirs = await exportRequest(bench.deps, volume, other.publicKey)
    const options = { request: mine.request, technician: technician.privateKey }
    const foreign = applyAnswer(bench.deps, volume, await answered(theirs.request), options)
    await assert.rejects(foreign, (error) => isFault(error, 'seal.answer_malformed'))
    const whole = await answered(mine.request)
    await assert.rejects(applyAnswer(bench.deps, volume, altered(whole), options), (error) =>
      isFault(error, 'seal.answer_malformed'),
    )
    const answer = await answered(mine.request)
    await regenVault(bench.deps, volume, 1)
    await assert.rejects(applyAnswer(bench.deps, volume, answer, options), (error) =>
      isFault(error, 'vault.answer_wrong'),
    )
    const unmarked = (await listVault(bench.deps, volume)).slots.every((slot) => !slot.regenerate)
    assert.equal(unmarked, true)
  })

  it('has nothing to export where nothing is bound', async () => {
    const volume = await bench.volume({ name: 'unbound.img' })
    await assert.rejects(exportRequest(bench.deps, volume, technician.publicKey), (error) =>
      isFault(error, 'vault.slot_unbound'),
    )
    using secret = Secret.copy(passphrase)
    await bindVault(bench.deps, volume, tangPolicy([server]), { passphrase: secret })
    assert.equal((await exportRequest(bench.deps, volume, technician.publicKey)).keyslot, 1)
  })
})
