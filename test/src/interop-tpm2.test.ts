import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { after, before, describe, test } from 'node:test'
import { type JsonObject, Secret } from '@holdfast/base'
import { type Swtpm, startSwtpm } from '@holdfast/base/swtpm-fixture'
import { parseJwe } from '@holdfast/crypto'
import {
  createPins,
  inspect,
  open,
  parsePolicy,
  policyOf,
  rehearse,
  reseal,
  seal,
} from '@holdfast/seal'
import { clevisDecrypt, clevisEncrypt } from './lib/clevis.ts'

describe('the tpm2 pin on a real TPM in software', () => {
  let tpm: Swtpm
  before(async () => {
    tpm = await startSwtpm()
  })
  after(() => tpm[Symbol.asyncDispose]())

  const ours = async (config: JsonObject): Promise<string> => {
    using plaintext = Secret.copy('hi')
    return await seal(createPins({ tcti: tpm.tcti }), parsePolicy('tpm2', config), plaintext)
  }
  const openText = async (sealed: string): Promise<string> => {
    using plaintext = await open(createPins({ tcti: tpm.tcti }), sealed)
    return plaintext.reveal().toString()
  }
  const clevis = async (work: (environment: Record<string, string>) => Promise<string>) => {
    await tpm.flush()
    try {
      return await work({ TPM2TOOLS_TCTI: tpm.tcti })
    } finally {
      await tpm.flush()
    }
  }

  const configs: JsonObject[] = [
    {},
    { pcr_bank: 'sha256', pcr_ids: '7' },
    { pcr_bank: 'sha1', pcr_ids: '0,7' },
    { pcr_bank: 'sha256', pcr_ids: ['0', '23'] },
    { hash: 'sha256', key: 'rsa' },
  ]
  for (const config of configs) {
    test(`both ways with clevis: ${JSON.stringify(config)}`, async () => {
      const own = await ours(config)
      const theirs = await clevis((environment) => clevisEncrypt('tpm2', config, 'hi', environment))
      assert.equal(await clevis((environment) => clevisDecrypt(own, environment)), 'hi')
      assert.equal(await openText(theirs), 'hi')
      assert.equal(await openText(own), 'hi')
      const facts = (sealed: string) => inspect(createPins(), sealed)
      assert.deepEqual(facts(own), facts(theirs))
      assert.deepEqual(policyOf(createPins(), own), policyOf(createPins(), theirs))
      const members = (sealed: string) => {
        const { clevis } = parseJwe(sealed).header as { clevis: { tpm2: JsonObject } } // just made
        return Object.keys(clevis.tpm2).sort()
      }
      assert.deepEqual(members(own), members(theirs))
    })
  }

  test('a changed PCR refuses, and the new state is sealed to again through another pin', async () => {
    const pins = createPins({ tcti: tpm.tcti })
    const tpm2 = { pcr_bank: 'sha256', pcr_ids: '16' }
    const sealed = await ours({ ...tpm2, pcr_ids: '16' })
    using plaintext = Secret.copy('hi')
    const policy = parsePolicy('sss', { t: 1, pins: { tpm2, null: {} } })
    const either = await seal(pins, policy, plaintext)
    assert.equal((await rehearse(pins, either)).margin, 1)
    assert.equal(await openText(sealed), 'hi')
    await tpm.extend(16)
    await assert.rejects(openText(sealed), {
      code: 'seal.tpm_failed',
      message: /the PCRs have changed/,
    })
    const failing = await rehearse(pins, either)
    assert.equal(failing.margin, 0)
    const fresh = await reseal(pins, either, policyOf(pins, either))
    assert.equal(fresh.rehearsal.margin, 1)
  })

  test('a PCR value given beforehand is what opens', async () => {
    const zeros = Buffer.alloc(32).toString('base64url')
    const config = { pcr_bank: 'sha256', pcr_ids: '23', pcr_digest: zeros }
    const sealed = await ours(config)
    assert.equal(await openText(sealed), 'hi')
    const other = await ours({ ...config, pcr_digest: Buffer.alloc(32, 1).toString('base64url') })
    await assert.rejects(openText(other), { code: 'seal.tpm_failed' })
  })

  test('another TPM refuses', async () => {
    const sealed = await ours({})
    await using other = await startSwtpm()
    await assert.rejects(open(createPins({ tcti: other.tcti }), sealed), {
      code: 'seal.tpm_failed',
    })
  })

  test('without a TPM it is a fault that says so', async () => {
    const sealed = await ours({})
    const pins = createPins({ tcti: 'swtpm:host=127.0.0.1,port=1' })
    await assert.rejects(open(pins, sealed), { code: 'seal.tpm_failed' })
  })

  test('nothing is left in memory files', async () => {
    const left = (await readdir('/dev/shm')).filter((name) =>
      name.startsWith(`holdfast-tpm2-${process.pid}-`),
    )
    assert.deepEqual(left, [])
  })

  test('configurations that are none are refused before the TPM is asked', async () => {
    const configs: JsonObject[] = [
      { hash: '-V' },
      { hash: 'sha256 --help' },
      { key: 7 },
      { pcr_ids: '7;8' },
      { pcr_ids: { 0: 7 } },
      { pcr_bank: '../x', pcr_ids: '7' },
      { pcr_digest: 5, pcr_ids: '7' },
      { unknown: true },
    ]
    for (const config of configs) {
      await assert.rejects(ours(config), { code: 'seal.policy_invalid' }, JSON.stringify(config))
    }
  })
})
