import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { isFault, type JsonObject, parseJsonObject, run, Secret } from '@holdfast/base'
import {
  bareJwk,
  compactJwe,
  curveNames,
  encryptJwe,
  flattenJwe,
  generateEcKey,
  parseJwe,
  thumbprint,
} from '@holdfast/crypto'
import {
  createFetch,
  createPins,
  inspect,
  knownKeys,
  leavesOf,
  open,
  parsePolicy,
  policyOf,
  rehearse,
  reseal,
  seal,
} from '@holdfast/seal'
import { clevisDecrypt, clevisEncrypt } from './lib/clevis.ts'
import { startTangd, type Tangd } from './lib/tangd.ts'

const pins = createPins()

async function ours(pin: string, config: JsonObject, text = 'hi'): Promise<string> {
  using plaintext = Secret.copy(text)
  return await seal(pins, parsePolicy(pin, config), plaintext)
}

async function openText(sealed: string): Promise<string> {
  using plaintext = await open(pins, sealed)
  return plaintext.reveal().toString()
}

/** Both directions with one configuration. */
async function bothWays(pin: string, config: JsonObject): Promise<{ own: string; theirs: string }> {
  const text = `${pin} ${JSON.stringify(config).length}`
  const [own, theirs] = await Promise.all([
    ours(pin, config, text),
    clevisEncrypt(pin, config, text),
  ])
  const opened = await Promise.all([clevisDecrypt(own), openText(theirs), openText(own)])
  assert.deepEqual(opened, [text, text, text])
  return { own, theirs }
}

describe('tang pins, both ways with clevis', () => {
  for (const exchange of curveNames) {
    for (const signing of curveNames) {
      test(`${exchange} exchange key, ${signing} signing key`, async () => {
        await using tang = await startTangd({ exchange, signing })
        const { own, theirs } = await bothWays('tang', await tang.config())
        const [form, like] = [parseJwe(own), parseJwe(theirs)]
        const shape = (value: unknown): unknown =>
          typeof value !== 'object' || value === null || Array.isArray(value)
            ? typeof value
            : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, shape(item)]))
        assert.deepEqual(shape(form.header), shape(like.header))
        assert.deepEqual(form.header.clevis, like.header.clevis)
        assert.equal(form.header.kid, like.header.kid)
      })
    }
  }

  test('a SHA-1 thumbprint, the advertisement itself, and both together', async () => {
    await using tang = await startTangd()
    const { url } = tang
    const reply = await createFetch()(`${url}/adv`, {
      method: 'GET',
      signal: AbortSignal.timeout(60_000),
    })
    const adv = parseJsonObject(reply.body, 'the advertisement')
    await bothWays('tang', { url, thp: await tang.thp('S1') })
    await bothWays('tang', { url, adv })
    await bothWays('tang', { url, adv, thp: await tang.thp() })
    await bothWays('tang', { url: `${url}/`, thp: await tang.thp() })
  })

  test('two signing and two exchange keys; a chosen exchange key stays chosen', async () => {
    await using tang = await startTangd({ exchange: 'P-256', signing: 'P-256' })
    await tang.addKey(generateEcKey('P-384'), 'signing')
    await tang.addKey(generateEcKey('P-384'), 'exchange')
    await bothWays('tang', await tang.config())
    const exchange = (await tang.keys()).filter((key) => key.key_ops?.includes('deriveKey'))
    assert.equal(exchange.length, 2)
    for (const kid of exchange.map((key) => thumbprint(key))) {
      const sealed = await ours('tang', { ...(await tang.config()), kid })
      assert.equal(parseJwe(sealed).header.kid, kid)
      assert.equal(await clevisDecrypt(sealed), 'hi')
      const again = await reseal(pins, sealed, policyOf(pins, sealed))
      assert.equal(parseJwe(again.sealed).header.kid, kid)
    }
  })

  test('a SHA-1 kid, an unsorted header and a missing encrypted_key open', async () => {
    await using tang = await startTangd({ exchange: 'P-256', signing: 'P-256' })
    const keys = (await tang.keys()).map((key) => ({ ...bareJwk(key), key_ops: key.key_ops ?? [] }))
    const exchange = keys.find((key) => key.key_ops.includes('deriveKey'))
    assert.ok(exchange)
    const header = {
      kid: thumbprint(exchange, 'S1'),
      clevis: { tang: { url: tang.url, adv: { keys } }, pin: 'tang' },
      alg: 'ECDH-ES',
    }
    const key = createPublicKey({ key: { ...bareJwk(exchange) }, format: 'jwk' })
    using plaintext = Secret.copy('hi')
    const sealed = await encryptJwe(header, key, plaintext)
    assert.equal(await clevisDecrypt(sealed), 'hi')
    const { encrypted_key: _none, ...token } = flattenJwe(sealed)
    assert.equal(await openText(compactJwe(token)), 'hi')
    assert.equal(await openText(`${sealed}\n`), 'hi')
  })

  test('keys of other types in the key directory do not spoil it', async () => {
    await using tang = await startTangd({ exchange: 'P-256', signing: 'P-256' })
    for (const template of ['{"alg":"RS256","bits":2048}', '{"alg":"HS256"}']) {
      const { stdout } = await run('jose', ['jwk', 'gen', '-i', template])
      await writeFile(join(tang.directory, `other-${template.length}.jwk`), stdout)
    }
    const sealed = await ours('tang', await tang.config())
    assert.equal(await openText(sealed), 'hi')
    assert.equal(await clevisDecrypt(sealed), 'hi')
    assert.equal(inspect(pins, sealed).keys?.length, 4)
  })
})

describe('thresholds, both ways with clevis', () => {
  let tangs: Tangd[] = []
  before(async () => {
    tangs = await Promise.all([
      startTangd(),
      startTangd({ exchange: 'P-256', signing: 'P-256' }),
      startTangd({ exchange: 'P-384', signing: 'P-521' }),
    ])
  })
  after(() => Promise.all(tangs.map((tang) => tang[Symbol.asyncDispose]())))

  for (const t of [1, 2, 3]) {
    test(`${t} of three key servers`, async () => {
      const tang = await Promise.all(tangs.map((server) => server.config()))
      await bothWays('sss', { t, pins: { tang } })
    })
  }

  test('nested, with null pins that open and one that fails', async () => {
    const [one, two, three] = await Promise.all(tangs.map((server) => server.config()))
    const inner = { t: 2, pins: { tang: [two, three] } }
    const config = { t: 3, pins: { null: [{}, { fail: true }], tang: one, sss: inner } }
    await bothWays('sss', config)
    const sealed = await clevisEncrypt('sss', config, 'hi')
    const rehearsal = await rehearse(pins, sealed)
    assert.equal(rehearsal.state, 'proven')
    assert.equal(rehearsal.margin, 0)
    const states = rehearsal.children?.map((child) => `${child.pin} ${child.state}`).sort()
    assert.deepEqual(states, ['null failed', 'null proven', 'sss proven', 'tang proven'])
    assert.equal(leavesOf(policyOf(pins, sealed)).length, 5)
  })

  test('too few: the fault names each pin that did not open', async () => {
    const config = { t: 2, pins: { null: [{ fail: true }], tang: await tangs[0]?.config() } }
    const sealed = await ours('sss', config)
    await assert.rejects(clevisDecrypt(sealed), { code: 'base.program_failed' })
    await assert.rejects(open(pins, sealed), (error: unknown) => {
      assert.ok(isFault(error, 'seal.threshold_not_met'))
      assert.equal(error.details?.opened, 1)
      assert.match(error.message, /^2 of 2 are needed, 1 opened: null:null \(always fails\): /)
      return true
    })
  })
})

describe('rotation by tangd-rotate-keys', () => {
  for (const maker of ['ours', 'clevis'] as const) {
    test(`what ${maker} sealed is resealed without a person`, async () => {
      await using tang = await startTangd({ exchange: 'P-256', signing: 'P-256' })
      const old = await tang.config()
      const sealed =
        maker === 'ours' ? await ours('tang', old) : await clevisEncrypt('tang', old, 'hi')
      await tang.rotate()
      const fresh = await tang.config()
      assert.notEqual(fresh.thp, old.thp)
      assert.equal(await openText(sealed), 'hi')
      for (const policy of [policyOf(pins, sealed), parsePolicy('tang', { url: tang.url })]) {
        const again = await reseal(pins, sealed, policy)
        assert.equal(again.rehearsal.state, 'proven')
        assert.equal(parseJwe(again.sealed).header.kid, await tang.kid())
        assert.ok(knownKeys(again.sealed).some(({ key }) => thumbprint(key) === fresh.thp))
        assert.equal(await clevisDecrypt(again.sealed), 'hi')
      }
      await assert.rejects(ours('tang', old), { code: 'seal.trust_refused' })
      await assert.rejects(ours('tang', { url: tang.url }), { code: 'seal.trust_required' })
    })
  }

  test('a key known from one server vouches for no other', async () => {
    await using trusted = await startTangd({ exchange: 'P-256', signing: 'P-256' })
    await using other = await startTangd({ exchange: 'P-256', signing: 'P-256' })
    const sealed = await ours('tang', await trusted.config())
    for (const key of await trusted.keys()) {
      if (key.key_ops?.includes('sign')) await other.addKey(key, 'signing')
    }
    const policy = parsePolicy('tang', { url: other.url })
    await assert.rejects(reseal(pins, sealed, policy), { code: 'seal.trust_required' })
    const moved = parsePolicy('tang', { url: other.url, thp: (await trusted.config()).thp })
    assert.equal((await reseal(pins, sealed, moved)).rehearsal.state, 'proven')
  })

  test('once the old keys are destroyed the old form is gone for good, and says so', async () => {
    await using tang = await startTangd({ exchange: 'P-256', signing: 'P-256' })
    const sealed = await ours('tang', await tang.config())
    await tang.rotate()
    for (const name of await readdir(tang.directory)) {
      if (name.startsWith('.')) await rm(join(tang.directory, name))
    }
    await assert.rejects(open(pins, sealed), {
      code: 'seal.server_refused',
      message: /no longer has exchange key/,
    })
    await assert.rejects(reseal(pins, sealed, policyOf(pins, sealed)), {
      code: 'seal.server_refused',
    })
  })
})
