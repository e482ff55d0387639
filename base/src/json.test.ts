import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { fromBase64url, toBase64url } from './encoding.ts'
import { isFault } from './fault.ts'
import { canonicalJson, parseJson, parseJsonObject } from './json.ts'
import { run } from './run.ts'

/** Names as the formats have them: no whole numbers. */
const name = fc
  .string({ unit: 'grapheme-ascii', maxLength: 6 })
  .filter((text) => !/^\d+$/.test(text))
const json = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: 'small' }, tie('leaf'), tie('list'), tie('object')),
  leaf: fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null)),
  list: fc.array(tie('value'), { maxLength: 4 }),
  object: fc.dictionary(name, tie('value'), { maxKeys: 5, noNullPrototype: true }),
})).value

describe('canonicalJson', () => {
  test('keeps the value, and does not depend on the order of members', () => {
    fc.assert(
      fc.property(json, (value) => {
        const text = canonicalJson(value)
        assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)))
        assert.equal(canonicalJson(reversed(value)), text)
      }),
    )
  })

  test('prints what `jq --sort-keys` prints', async () => {
    const values = fc.sample(json, 30)
    const { stdout } = await run('jq', ['--sort-keys', '--compact-output', '.'], {
      input: values.map((value) => JSON.stringify(value)).join('\n'),
    })
    assert.deepEqual(
      stdout
        .toString()
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
      values.map((value) => JSON.parse(canonicalJson(value))),
    )
    const ascii = '{"b":[{"z":1,"a":2}],"_":{},"B":null,"a":"\\u00e9"}'
    assert.equal(canonicalJson(JSON.parse(ascii)), '{"B":null,"_":{},"a":"é","b":[{"a":2,"z":1}]}')
  })

  test('a member called __proto__ is a member like any other', () => {
    const value: unknown = JSON.parse('{"b":1,"__proto__":{"polluted":true}}')
    assert.equal(canonicalJson(value), '{"__proto__":{"polluted":true},"b":1}')
    assert.equal(Object.hasOwn(Object.prototype, 'polluted'), false)
  })
})

function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, member]) => [key, reversed(member)]),
  )
}

describe('parseJson', () => {
  test('refuses what is not JSON without quoting it', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          JSON.parse(text)
        } catch {
          assert.throws(
            () => parseJson(`hunter2${text}`, 'the secret file'),
            (error: unknown) =>
              isFault(error, 'base.bad_json') && error.message === 'the secret file is not JSON',
          )
        }
      }),
    )
  })

  test('bounds length and depth, wherever brackets stand', () => {
    const deep = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`
    assert.throws(() => parseJson(' '.repeat(11), 'it', 10), { message: /longer than 10/ })
    assert.doesNotThrow(() => parseJson(deep(64), 'it'))
    assert.throws(() => parseJson(deep(65), 'it'), { message: /nested deeper than 64/ })
    assert.throws(() => parseJson('{"a":'.repeat(400_000), 'it', 1e7), { code: 'base.bad_json' })
    assert.throws(() => parseJson('['.repeat(400_000), 'it', 1e7), { code: 'base.bad_json' })
    const inString = JSON.stringify({ text: `"\\${'['.repeat(1000)}\\"` })
    assert.deepEqual(parseJson(inString, 'it'), JSON.parse(inString))
    assert.equal((parseJson(`[${'[],'.repeat(1000)}0]`, 'it') as unknown[]).length, 1001) // a list
  })

  test('an object is asked for by name', () => {
    for (const text of ['[]', 'null', '1', '"x"']) {
      assert.throws(() => parseJsonObject(text, 'it'), { message: 'it is not a JSON object' })
    }
    assert.deepEqual(parseJsonObject('{"a":1}', 'it'), { a: 1 })
  })
})

describe('base64url', () => {
  test('round trip', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        assert.deepEqual(new Uint8Array(fromBase64url(toBase64url(bytes))), bytes)
      }),
    )
  })

  test('one text for one value: anything else is refused', () => {
    for (const text of ['AA==', 'A', 'AB', 'A+A', 'A/A', 'AA A', 'AA\n', 'é', 'AAAAB']) {
      assert.throws(() => fromBase64url(text, 'the tag'), {
        code: 'base.bad_encoding',
        message: 'the tag is not unpadded base64url',
      })
    }
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          assert.equal(toBase64url(fromBase64url(text)), text)
        } catch (error) {
          assert.ok(isFault(error, 'base.bad_encoding'))
        }
      }),
    )
  })
})
