import assert from 'node:assert/strict'
import { createDecipheriv, pbkdf2Sync } from 'node:crypto'
import { describe, test } from 'node:test'
import { Secret } from '@holdfast/base'
import { decryptJwe, parseJwe } from '@holdfast/crypto'
import { inspect } from './inspect.ts'
import { labPins, openText, sealText, withHeader } from './lab.ts'
import { open } from './open.ts'
import { createPins } from './pins.ts'
import { parsePolicy } from './policy.ts'
import { reseal } from './reseal.ts'

const asking = (text: string | undefined, asked: string[] = []) =>
  createPins({
    passphrase: async (label) => {
      asked.push(label)
      return text === undefined ? undefined : Secret.copy(text)
    },
  })

describe('a passphrase', () => {
  test('seals and opens; the prompt names it; a wrong one is told', async () => {
    const asked: string[] = []
    const pins = asking('correct horse', asked)
    const sealed = await sealText(parsePolicy('passphrase', { name: 'safe' }), 'hi', {}, pins)
    assert.equal(await openText(sealed, pins), 'hi')
    assert.deepEqual(asked, ['passphrase safe', 'passphrase safe'])
    await assert.rejects(open(asking('wrong'), sealed), { code: 'seal.passphrase_wrong' })
    for (const nobody of [asking(undefined), asking(''), labPins]) {
      await assert.rejects(open(nobody, sealed), { code: 'seal.passphrase_absent' })
      await assert.rejects(sealText(parsePolicy('passphrase', {}), 'hi', {}, nobody), {
        code: 'seal.passphrase_absent',
      })
    }
  })

  test('is the standard form of RFC 7518 section 4.8', async () => {
    const jwe = parseJwe(await sealText(parsePolicy('passphrase', {}), 'hi', {}, asking('pw')))
    const { alg, p2s, p2c } = jwe.header
    assert.deepEqual([alg, p2c], ['PBES2-HS512+A256KW', 210_000])
    const salt = Buffer.concat([Buffer.from(`${alg}\0`), Buffer.from(String(p2s), 'base64url')])
    const wrapping = pbkdf2Sync('pw', salt, 210_000, 32, 'sha512')
    const iv = Buffer.alloc(8, 0xa6) // RFC 3394 section 2.2.3.1
    const unwrap = createDecipheriv('id-aes256-wrap', wrapping, iv)
    using key = Secret.take(Buffer.concat([unwrap.update(jwe.encryptedKey), unwrap.final()]))
    assert.equal(decryptJwe(jwe, key).reveal().toString(), 'hi')
  })

  test('is asked for three times by a reseal: to open the old form, to make and to prove the new', async () => {
    const asked: string[] = []
    const pins = asking('pw', asked)
    const policy = parsePolicy('passphrase', {})
    const sealed = await sealText(policy, 'hi', {}, pins)
    asked.length = 0
    assert.equal((await reseal(pins, sealed, policy)).rehearsal.state, 'proven')
    assert.equal(asked.length, 3)
  })

  test('a form that would take minutes, or none, is refused before anybody is asked', async () => {
    const sealed = await sealText(parsePolicy('passphrase', {}), 'hi', {}, asking('pw'))
    for (const p2c of [2_000_001, 1e12, 0, -1, 1.5, '210000', null, 999]) {
      const asked: string[] = []
      const edited = withHeader(sealed, (header) => ({ ...header, p2c }))
      await assert.rejects(open(asking('pw', asked), edited), { code: 'seal.sealed_malformed' })
      assert.deepEqual(asked, [])
    }
    for (const change of [{ alg: 'dir' }, { p2s: '' }, { p2s: 7 }, { alg: 'PBES2-HS1' }]) {
      const edited = withHeader(sealed, (header) => ({ ...header, ...change }))
      await assert.rejects(open(asking('pw'), edited), (error: { code?: string }) =>
        ['seal.passphrase_wrong', 'crypto.jwe_malformed'].includes(error.code ?? ''),
      )
    }
  })

  test('a name can do nothing to a terminal', async () => {
    const sealed = await sealText(parsePolicy('passphrase', {}), 'hi', {}, asking('pw'))
    const name = '\u001b[2Jx\u0007\n\u202ey'
    const edited = withHeader(sealed, (header) => ({
      ...header,
      clevis: { pin: 'passphrase', passphrase: { name } },
    }))
    assert.doesNotMatch(inspect(labPins, edited).label, /[\p{Cc}\p{Cf}]/u)
    const odd = parsePolicy('passphrase', { name: 7 })
    await assert.rejects(sealText(odd, 'hi', {}, asking('pw')), { code: 'seal.policy_invalid' })
  })
})
