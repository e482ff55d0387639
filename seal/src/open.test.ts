import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import { inspect, knownKeys, lineageOf, policyOf } from './inspect.ts'
import { failing, labPins, nul, nulls, openText, sealText, withHeader } from './lab.ts'
import { type OpenEvent, open, subsets } from './open.ts'
import type { Pin } from './pin.ts'
import { createPins } from './pins.ts'
import { parsePolicy, threshold } from './policy.ts'
import { rehearse } from './rehearse.ts'
import { prove, reseal } from './reseal.ts'
import { seal } from './seal.ts'
import vectors from './vectors/clevis.json' with { type: 'json' }

/** A pin of another part, which opens when it is told to. */
function latePin(): Pin & { release(): void } {
  const kept = new Map<string, Buffer>()
  const { promise, resolve } = Promise.withResolvers<void>()
  const { get } = labPins
  return {
    ...get('null'),
    name: 'late',
    local: false,
    label: () => 'late',
    release: resolve,
    seal: async (plaintext) => {
      const form = await sealText(nul, 'late')
      kept.set(form, Buffer.from(plaintext.reveal()))
      return withHeader(form, (header) => ({ ...header, clevis: { pin: 'late', late: { form } } }))
    },
    open: async (jwe) => {
      await promise
      const { clevis } = jwe.header as { clevis: { late: { form: string } } } // sealed above
      return Secret.copy(kept.get(clevis.late.form) ?? '')
    },
    inspect: () => ({ label: 'late' }),
    policyOf: () => ({ kind: 'pin', pin: 'late', config: {} }),
  }
}

describe('what clevis sealed', () => {
  test('opens: null, and 2 of 3', async () => {
    assert.equal(await openText(vectors.null.sealed), vectors.null.plaintext)
    assert.equal(await openText(vectors.threshold.sealed), vectors.threshold.plaintext)
    assert.equal((await rehearse(labPins, vectors.threshold.sealed)).state, 'proven')
  })

  test('becomes ours by a reseal', async () => {
    const { sealed, plaintext } = vectors.threshold
    assert.equal(lineageOf(sealed), undefined)
    const again = await reseal(labPins, sealed, policyOf(labPins, sealed))
    assert.equal(lineageOf(again.sealed)?.generation, 1)
    assert.equal(await openText(again.sealed), plaintext)
  })
})

describe('opening', () => {
  test('tells what happens, and t shares end it', async () => {
    const late = latePin()
    const pins = createPins({ extra: [late] })
    const policy = threshold(2, [parsePolicy('late', {}), nul, failing, nul])
    const sealed = await sealText(policy, 'hi', {}, pins)
    const events: OpenEvent[] = []
    using opened = await open(pins, sealed, { onEvent: (event) => void events.push(event) })
    assert.equal(opened.reveal().toString(), 'hi')
    late.release()
    await new Promise((resolve) => setImmediate(resolve))
    const of = (index: number) =>
      events.filter(({ path }) => path[0] === index).map(({ state }) => state)
    assert.deepEqual([0, 1, 2].map(of), [
      ['started', 'cancelled'],
      ['started', 'opened'],
      ['started', 'failed'],
    ])
    assert.equal(JSON.stringify(events).includes('hi'), false)
  })

  test('a pin that does not heed its signal cannot hold the others up', async () => {
    const pins = createPins({ extra: [latePin()] })
    const sealed = await sealText(parsePolicy('late', {}), 'hi', {}, pins)
    await assert.rejects(open(pins, sealed, { timeout: 20 }), { code: 'seal.pin_timeout' })
    const stop = new AbortController()
    const opening = open(pins, sealed, { signal: stop.signal })
    stop.abort(new Error('enough'))
    await assert.rejects(opening, { message: 'enough' })
  })

  test('a secret that comes too late is wiped', async () => {
    const given = Secret.copy('x')
    const { promise, resolve } = Promise.withResolvers<void>()
    const slow: Pin = {
      ...labPins.get('null'),
      name: 'slow',
      local: false,
      open: async () => {
        await promise
        return given
      },
      inspect: () => ({ label: 'slow' }),
    }
    const pins = createPins({ extra: [slow] })
    const sealed = withHeader(await sealText(nul), (header) => ({
      ...header,
      clevis: { pin: 'slow', slow: {} },
    }))
    await assert.rejects(open(pins, sealed, { timeout: 10 }), { code: 'seal.pin_timeout' })
    resolve()
    await new Promise((done) => setImmediate(done))
    assert.throws(() => given.reveal(), { code: 'base.secret_disposed' })
  })

  test('a pin that throws anything is one failure among others', async () => {
    const broken: Pin = {
      ...labPins.get('null'),
      name: 'broken',
      open: async () => {
        throw new TypeError('a defect')
      },
    }
    const pins = createPins({ extra: [broken] })
    const form = withHeader(await sealText(nul), ({ clevis, ...header }) => ({
      ...header,
      clevis: { ...(clevis as object), pin: 'broken' }, // made above
    }))
    await assert.rejects(open(pins, form), { message: 'a defect' })
    const rehearsal = await rehearse(pins, form)
    assert.deepEqual([rehearsal.state, rehearsal.fault?.code], ['failed', 'seal.internal'])
  })

  test('an unknown pin is named', async () => {
    const form = withHeader(await sealText(nul), (header) => ({
      ...header,
      clevis: { pin: 'pkcs11', pkcs11: {} },
    }))
    await assert.rejects(open(labPins, form), {
      code: 'seal.pin_unknown',
      message: 'there is no pin named "pkcs11"',
    })
  })
})

describe('subsets', () => {
  test('are all of a size, in order, within the bound, without a search for what cannot be', () => {
    assert.deepEqual(subsets([1, 2, 3], 2), [
      [1, 2],
      [1, 3],
      [2, 3],
    ])
    assert.deepEqual(subsets([1, 2], 0), [[]])
    assert.deepEqual(subsets([1, 2], 3), [])
    assert.equal(subsets(Array(62).fill(0), 63).length, 0)
    assert.equal(subsets(Array(63).fill(0), 31, 500).length, 500)
    assert.equal(subsets([1, 2, 3], 2, 0).length, 0)
  })
})

describe('resealing', () => {
  test('returns the new form only when it has been proven; the old one still opens', async () => {
    const sealed = await sealText(nulls(1, 2))
    await assert.rejects(reseal(labPins, sealed, threshold(2, [nul, failing])), {
      code: 'seal.proof_failed',
      message: /null null \(always fails\): /,
    })
    assert.equal(await openText(sealed), 'hi')
    const { sealed: fresh, rehearsal } = await reseal(labPins, sealed, nulls(2, 3))
    assert.equal(rehearsal.margin, 1)
    assert.deepEqual(await Promise.all([openText(sealed), openText(fresh)]), ['hi', 'hi'])
  })

  test('accepts what needs absent people only when told to, and a failed pin never', async () => {
    const key = { kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' }
    const person = parsePolicy('person', { name: 'alice', key })
    const sealed = await sealText(nul)
    const needs = threshold(2, [nul, person])
    await assert.rejects(reseal(labPins, sealed, needs), { code: 'seal.proof_failed' })
    const { rehearsal } = await reseal(labPins, sealed, needs, { unproven: true })
    assert.equal(rehearsal.state, 'not_tried')
    const broken = threshold(2, [failing, person])
    await assert.rejects(reseal(labPins, sealed, broken, { unproven: true }), {
      code: 'seal.proof_failed',
    })
  })

  test('a proof is of this plaintext', async () => {
    const sealed = await sealText(nul)
    using other = Secret.copy('something else')
    await assert.rejects(prove(labPins, sealed, other), { code: 'seal.proof_failed' })
    using same = Secret.copy('hi')
    assert.equal((await prove(labPins, sealed, same)).state, 'proven')
  })
})

describe('sealing', () => {
  test('returns nothing unless every pin could seal', async () => {
    const bad = parsePolicy('null', { fail: 'yes' })
    await assert.rejects(sealText(threshold(1, [nul, bad])), { code: 'seal.policy_invalid' })
    const unknown = parsePolicy('unheard-of', {})
    await assert.rejects(sealText(threshold(1, [nul, unknown])), { code: 'seal.pin_unknown' })
  })

  test('refuses what opening would refuse', async () => {
    let deep = nul
    for (let depth = 0; depth < 9; depth += 1) deep = threshold(1, [deep])
    await assert.rejects(sealText(deep), { code: 'seal.policy_invalid' })
    const wide = threshold(1, [nulls(1, 64), nulls(1, 64), nulls(1, 64), nulls(1, 64), nul])
    await assert.rejects(sealText(wide), { code: 'seal.policy_invalid' })
  })

  test('the deepest allowed nesting opens', async () => {
    let deep = nul
    for (let depth = 0; depth < 8; depth += 1) deep = threshold(1, [deep])
    const sealed = await sealText(deep)
    assert.equal(await openText(sealed), 'hi')
    assert.deepEqual(policyOf(labPins, sealed), deep)
  })

  test('does not wipe or keep what it was given', async () => {
    using plaintext = Secret.copy('hi')
    const sealed = await seal(labPins, nulls(2, 3), plaintext)
    assert.equal(plaintext.reveal().toString(), 'hi')
    assert.equal(await openText(sealed), 'hi')
  })
})

describe('inspection', () => {
  test('asks nothing and says everything', async () => {
    const sealed = await sealText(threshold(2, [nul, failing, nulls(1, 2)]), 'hi', {
      generation: 5,
    })
    const facts = inspect(labPins, sealed)
    assert.deepEqual(
      { ...facts, set: undefined, children: facts.children?.map(({ label }) => label) },
      {
        pin: 'sss',
        label: '2 of 3',
        threshold: 2,
        set: undefined,
        generation: 5,
        children: ['null', 'null (always fails)', '1 of 2'],
      },
    )
    assert.equal(lineageOf(sealed)?.generation, 5)
    assert.deepEqual(knownKeys(sealed), [])
    assert.ok(isFault(await rehearse(labPins, 'x').catch((error: unknown) => error)))
  })
})
