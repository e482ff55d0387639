import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Fault, isFault, Secret } from '@holdfast/base'
import { parseJwe } from '@holdfast/crypto'
import fc from 'fast-check'
import {
  childrenOf,
  failing,
  labPins,
  nul,
  nullForm,
  nulls,
  openText,
  sealText,
  withChildren,
  withHeader,
} from './lab.ts'
import { open } from './open.ts'
import { threshold } from './policy.ts'
import { rehearse } from './rehearse.ts'
import { reseal } from './reseal.ts'
import { readMembership } from './share-set.ts'

/** The code with which the first child of a rehearsal failed, whatever became of the others. */
async function codeOfFirst(sealed: string): Promise<string | undefined> {
  const { children = [] } = await rehearse(labPins, sealed)
  return children[0]?.fault?.code
}

async function failureOf(work: Promise<unknown>): Promise<Fault> {
  const error = await work.then(
    () => assert.fail('it opened'),
    (reason: unknown) => reason,
  )
  assert.ok(isFault(error), String(error))
  return error
}

describe('a share alone', () => {
  const set = { set: 'A'.repeat(22), generation: 4 }

  test('that is foreign, stale, duplicate or wrong is told apart by its code', async () => {
    const sealed = await sealText(nulls(2, 3), 'hi', set)
    const other = await sealText(nulls(2, 3), 'hi')
    const stale = await sealText(nulls(2, 3), 'hi', { ...set, generation: 3 })
    const [first = '', second = '', third = ''] = childrenOf(sealed)
    const membership = { ...set, index: 0 }
    const cases: Record<string, string> = {
      'seal.share_foreign': childrenOf(other)[0] ?? '',
      'seal.share_stale': childrenOf(stale)[0] ?? '',
      'seal.share_duplicate': second,
      'seal.share_wrong': await nullForm(Buffer.alloc(64, 1), { holdfast: { share: membership } }),
    }
    for (const [code, child] of Object.entries(cases)) {
      const mixed = withChildren(sealed, [child, second, third])
      assert.equal(await codeOfFirst(mixed), code)
      const error = await failureOf(open(labPins, mixed))
      assert.equal(JSON.stringify(error).includes('"hi"'), false)
    }
    for (const child of [await nullForm(Buffer.alloc(64, 1)), await nullForm('short')]) {
      assert.equal(
        await codeOfFirst(withChildren(sealed, [child, second, third])),
        'seal.share_wrong',
      )
    }
    assert.equal(await codeOfFirst(sealed), undefined)
    assert.ok(first)
  })

  test('names the share it is about', async () => {
    const sealed = await sealText(nulls(2, 2))
    const [first = '', second = ''] = childrenOf(sealed)
    const error = await failureOf(open(labPins, withChildren(sealed, [second, first])))
    assert.match(
      error.message,
      /null:null: the share of null:null stands in the place of null:null/,
    )
    assert.equal(error.code, 'seal.threshold_not_met')
  })

  test('keeps its set through a reseal and counts the generation', async () => {
    const sealed = await sealText(nulls(1, 2))
    const { sealed: again } = await reseal(labPins, sealed, nulls(2, 3))
    const [before, after] = [sealed, again].map((text) =>
      readMembership(parseJwe(childrenOf(text)[0] ?? '')),
    )
    assert.equal(before?.set, after?.set)
    assert.deepEqual([before?.generation, after?.generation], [1, 2])
  })

  test('no edited header makes a fault of another kind, or opens', async () => {
    const sealed = await sealText(nulls(2, 3))
    const path = fc.constantFrom(
      ['clevis'],
      ['clevis', 'pin'],
      ['clevis', 'sss'],
      ['clevis', 'sss', 't'],
      ['clevis', 'sss', 'p'],
      ['clevis', 'sss', 'jwe'],
      ['clevis', 'sss', 'jwe', '0'],
      ['holdfast'],
      ['holdfast', 'shares'],
      ['holdfast', 'shares', 'v'],
      ['holdfast', 'shares', 'set'],
      ['holdfast', 'shares', 'generation'],
      ['holdfast', 'shares', 'names'],
      ['holdfast', 'shares', 'verifiers'],
      ['holdfast', 'shares', 'verifiers', '1'],
    )
    await fc.assert(
      fc.asyncProperty(path, fc.jsonValue({ maxDepth: 2 }), async (steps, value) => {
        const edited = withHeader(sealed, (header) => {
          let at: Record<string, unknown> = header
          for (const step of steps.slice(0, -1)) at = at[step] as Record<string, unknown> // exists
          at[steps.at(-1) ?? ''] = value
          return header
        })
        if (edited === sealed) return
        const error = await failureOf(open(labPins, edited))
        assert.notEqual(error.code, 'seal.internal', error.message)
      }),
      { numRuns: 150 },
    )
  })
})

describe('thresholds', () => {
  test('open from any t shares, and not from fewer', async () => {
    const plan = fc
      .array(fc.boolean(), { minLength: 1, maxLength: 6 })
      .chain((works) => fc.tuple(fc.constant(works), fc.integer({ min: 1, max: works.length })))
    await fc.assert(
      fc.asyncProperty(plan, async ([works, t]) => {
        const policy = threshold(
          t,
          works.map((work) => (work ? nul : failing)),
        )
        const sealed = await sealText(policy, 'the text')
        const enough = works.filter(Boolean).length >= t
        if (enough) assert.equal(await openText(sealed), 'the text')
        else {
          const error = await failureOf(open(labPins, sealed))
          assert.equal(error.code, 'seal.threshold_not_met')
          assert.equal(error.details?.opened, works.filter(Boolean).length)
        }
        const rehearsal = await rehearse(labPins, sealed)
        assert.equal(rehearsal.state === 'proven', enough)
        assert.equal(rehearsal.margin, works.filter(Boolean).length - t)
      }),
      { numRuns: 40 },
    )
  })

  test('large ones open at once', async () => {
    assert.equal(await openText(await sealText(nulls(60, 64))), 'hi')
    assert.equal(await openText(await sealText(nulls(64, 64))), 'hi')
  })

  test('bad shares that cannot be checked alone do not spoil the good ones', async () => {
    const sealed = await sealText(nulls(2, 5))
    const children = childrenOf(sealed)
    const bad = await nullForm(Buffer.alloc(64, 1))
    const short = await nullForm('short')
    const plain = (text: string) => withHeader(text, ({ holdfast: _ours, ...header }) => header) // as clevis would make it
    const mixed = plain(withChildren(sealed, [bad, short, ...children.slice(2)]))
    const error = await failureOf(open(labPins, mixed))
    // Edited, so that the tag cannot verify; the point is that it ends, and says this.
    assert.equal(error.code, 'seal.share_wrong')
    assert.match(error.message, /do not open the secret together/)
  })

  test('the search for good ones among bad ones ends', async () => {
    const sealed = await sealText(nulls(20, 40))
    const plain = withHeader(sealed, ({ holdfast: _ours, ...header }) => header)
    assert.equal((await failureOf(open(labPins, plain))).code, 'seal.share_wrong')
    assert.equal((await rehearse(labPins, plain)).state, 'failed')
  })

  test('a rehearsal and its faults show nothing of secret, shares or keys', async () => {
    const sealed = await sealText(threshold(2, [nul, failing, nul, nulls(1, 2)]), 'the plaintext')
    const text = JSON.stringify(await rehearse(labPins, sealed))
    assert.equal(text.includes('the plaintext'), false)
    for (const child of childrenOf(sealed)) {
      const { header } = parseJwe(child)
      const key = /"k":"([\w-]+)"/.exec(JSON.stringify(header))?.[1]
      if (key !== undefined) assert.equal(text.includes(key), false)
    }
    using secret = Secret.copy('x')
    assert.equal(JSON.stringify({ secret }), '{"secret":"[secret]"}')
  })
})
