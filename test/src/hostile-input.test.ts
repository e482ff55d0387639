import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault, type JsonObject, parseJson, Secret } from '@holdfast/base'
import { encryptJwe, jweLimit, parseJwe } from '@holdfast/crypto'
import {
  createPins,
  holderRequests,
  inspect,
  knownKeys,
  lineageOf,
  open,
  type Pins,
  parsePolicy,
  parseRecoveryRequest,
  policyOf,
  rehearse,
  seal,
  threshold,
} from '@holdfast/seal'
import fc from 'fast-check'
import { makeKeys, startHonest } from './lib/own-server.ts'

// Sealed secrets come from disks that others may have written. Whatever they hold, each reader
// answers or ends in a fault that is not a defect of ours, shows no plaintext, and comes to an end.

const plaintextText = 'the plaintext'
const offline: Pins = createPins({
  fetch: async () => ({ status: 503, body: '' }),
  passphrase: async () => Secret.copy('pw'),
  tcti: 'swtpm:host=127.0.0.1,port=1',
})

const readers: Record<string, (sealed: string) => unknown> = {
  open: (sealed) => open(offline, sealed),
  rehearse: (sealed) => rehearse(offline, sealed),
  inspect: (sealed) => inspect(offline, sealed),
  policyOf: (sealed) => policyOf(offline, sealed),
  knownKeys,
  lineageOf,
  holderRequests,
}

/** Every reader answers or faults; gives the codes. */
async function harmless(sealed: string): Promise<string[]> {
  const codes: string[] = []
  for (const [name, read] of Object.entries(readers)) {
    try {
      const answer = await read(sealed)
      if (answer instanceof Secret) answer[Symbol.dispose]()
      else assert.equal(JSON.stringify(answer ?? '').includes(plaintextText), false, name)
      assert.equal(JSON.stringify(answer ?? '').includes('seal.internal'), false, name)
    } catch (error) {
      assert.ok(isFault(error), `${name}: ${error instanceof Error ? error.stack : error}`)
      assert.notEqual(error.kind, 'internal', `${name}: ${error.message}`)
      assert.equal(JSON.stringify(error).includes('seal.internal'), false, name)
      assert.equal(JSON.stringify(error).includes(plaintextText), false, name)
      codes.push(error.code)
    }
  }
  assert.equal(Object.hasOwn(Object.prototype, 'polluted'), false)
  return codes
}

const holder = { kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' }

/** One valid form of each kind. */
async function corpus(): Promise<Record<string, string>> {
  const keys = makeKeys()
  await using server = await startHonest(keys)
  const pins = createPins({ passphrase: async () => Secret.copy('pw') })
  const tang = parsePolicy('tang', { url: server.url, thp: keys.thp })
  const person = parsePolicy('person', { name: 'alice', key: holder })
  const nul = parsePolicy('null', {})
  const tree = threshold(2, [tang, person, threshold(1, [nul, tang]), nul])
  using plaintext = Secret.copy(plaintextText)
  const forms = { tang, person, nul, tree, passphrase: parsePolicy('passphrase', {}) }
  const sealed: Record<string, string> = {}
  for (const [name, policy] of Object.entries(forms)) {
    sealed[name] = await seal(pins, policy, plaintext)
  }
  const own = { hash: 'sha256', key: 'ecc', jwk_pub: 'AAAA', jwk_priv: 'AAAA' }
  const pcr = { ...own, pcr_bank: 'sha256', pcr_ids: '7' }
  for (const [name, tpm2] of Object.entries({ tpm: own, pcr })) {
    using key = Secret.random(32)
    const header = { alg: 'dir', clevis: { pin: 'tpm2', tpm2 } }
    sealed[name] = await encryptJwe(header, key, plaintext)
  }
  return sealed
}

const forms = await corpus()

/** The same parts behind another header. */
function withHeaderText(sealed: string, text: string): string {
  const [, ...rest] = sealed.split('.')
  return [Buffer.from(text).toString('base64url'), ...rest].join('.')
}

/** Paths to every member of a JSON value. */
function pathsOf(value: unknown, at: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, member]) => [
    [...at, name],
    ...pathsOf(member, [...at, name]),
  ])
}

const odd = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom<unknown>(
    'constructor',
    '__proto__',
    'sss',
    'AA',
    'P-384',
    '',
    -1,
    0,
    64,
    1e308,
    [],
    {},
    null,
    '../../etc/passwd',
    '\u0000',
    'x'.repeat(5000),
    { kty: 'constructor' },
    [{ kty: 'oct' }],
    [[[[[[]]]]]],
  ),
)

describe('sealed secrets with', () => {
  for (const [name, sealed] of Object.entries(forms)) {
    const { header } = parseJwe(sealed)
    const paths = pathsOf(header)

    test(`any member of a ${name} header missing, or of another kind`, async () => {
      for (const path of paths) {
        await harmless(withHeaderText(sealed, JSON.stringify(edited(header, path, undefined))))
      }
      await fc.assert(
        fc.asyncProperty(fc.constantFrom(...paths), odd, async (path, value) => {
          await harmless(withHeaderText(sealed, JSON.stringify(edited(header, path, value))))
        }),
        { numRuns: name === 'tree' || name === 'passphrase' ? 40 : 80 },
      )
    })

    test(`letters of a ${name} form changed, lost or added`, async () => {
      const edit = fc.record({
        at: fc.nat({ max: sealed.length - 1 }),
        cut: fc.constantFrom(0, 1, 4),
        put: fc.constantFrom('', 'A', '.', '=', '{', '\u0000', 'é'),
      })
      await fc.assert(
        fc.asyncProperty(edit, async ({ at, cut, put }) => {
          const changed = sealed.slice(0, at) + put + sealed.slice(at + cut)
          const codes = await harmless(changed)
          if (changed !== sealed) assert.ok(codes.length > 0, 'it opened')
        }),
        { numRuns: 25 },
      )
    })
  }

  test('members that objects inherit, twice, or named like them', async () => {
    const { nul = '', tree = '' } = forms
    const inherited = [
      '{"alg":"dir","enc":"A256GCM","__proto__":{"clevis":{"pin":"null"},"polluted":1}}',
      '{"alg":"dir","enc":"A256GCM","clevis":{"pin":"__proto__"}}',
      '{"alg":"dir","enc":"A256GCM","clevis":{"pin":"constructor","constructor":{}}}',
      '{"alg":"dir","enc":"A256GCM","clevis":{"__proto__":{"pin":"null","null":{}}}}',
      '{"alg":"dir","enc":"A256GCM","clevis":{"pin":"sss","pin":"null","null":{},"null":{}}}',
      '{"alg":"dir","enc":"A256GCM","clevis":{"pin":"toString"}}',
      '{"alg":"dir","enc":"A256GCM","clevis":"sss"}',
      '{"alg":"dir","enc":"A256GCM"}',
    ]
    for (const text of inherited) {
      for (const sealed of [nul, tree])
        assert.ok((await harmless(withHeaderText(sealed, text))).length)
    }
  })

  test('nothing in them, or everything', async () => {
    const texts = ['', '.', '....', 'a.b.c.d.e', '\u0000', 'null', '{}', '.'.repeat(100_000)]
    for (const text of texts) assert.ok((await harmless(text)).length > 0)
    assert.ok((await harmless('A'.repeat(jweLimit + 1))).includes('crypto.jwe_too_large'))
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        assert.ok((await harmless(text)).length > 0)
      }),
      { numRuns: 30 },
    )
  })
})

function edited(header: JsonObject, path: readonly string[], value: unknown): JsonObject {
  const copy = structuredClone(header)
  let at: JsonObject = copy
  for (const step of path.slice(0, -1)) at = at[step] as JsonObject // the path is the header's own
  const last = path.at(-1) ?? ''
  if (value === undefined) delete at[last]
  else at[last] = value
  return copy
}

describe('bombs', () => {
  async function wrap(children: readonly string[], t = 1): Promise<string> {
    using key = Secret.random(32)
    using plaintext = Secret.copy('x')
    const sss = { jwe: children, p: Buffer.alloc(32, 0xff).toString('base64url'), t }
    return await encryptJwe({ alg: 'dir', clevis: { pin: 'sss', sss } }, key, plaintext)
  }

  test('thresholds nested ever deeper', async () => {
    let sealed = forms.nul ?? ''
    for (let depth = 1; sealed.length < jweLimit / 16; depth += 1) {
      sealed = await wrap([sealed])
      const codes = new Set(await harmless(sealed))
      if (depth > 8) assert.ok(codes.has('seal.sealed_malformed'), `depth ${depth}`)
    }
  })

  test('thresholds that fan out', async () => {
    const leaf = forms.nul ?? ''
    const row = await wrap(Array(64).fill(leaf))
    const codes = await harmless(await wrap(Array(40).fill(row)))
    assert.equal(codes.length, 6, codes.join())
    assert.deepEqual([...new Set(codes)], ['seal.sealed_malformed'])
    assert.ok((await harmless(await wrap(Array(65).fill('x')))).includes('seal.sealed_malformed'))
  })

  test('children that are anything', async () => {
    const any = fc.array(fc.oneof(fc.string(), fc.constantFrom(...Object.values(forms))), {
      maxLength: 6,
    })
    await fc.assert(
      fc.asyncProperty(any, fc.integer({ min: -1, max: 7 }), async (children, t) => {
        await harmless(await wrap(children, t))
      }),
      { numRuns: 30 },
    )
  })

  test('headers and recovery requests of deep JSON', async () => {
    const deep = `${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`
    for (const text of [deep, '['.repeat(100_000), `{"enc":"A256GCM","clevis":${deep}}`]) {
      assert.ok((await harmless(withHeaderText(forms.nul ?? '', text))).length > 0)
      assert.throws(
        () => parseRecoveryRequest(text),
        (error) => isFault(error),
      )
    }
  })
})

describe('policies and requests', () => {
  test('with any configuration for any pin are a sealed form or a fault', async () => {
    const pin = fc.constantFrom('tang', 'tpm2', 'null', 'passphrase', 'person', 'sss', 'x')
    const known = fc.dictionary(
      fc.constantFrom('url', 'thp', 'adv', 'kid', 'fail', 'name', 'key', 'hash', 'pcr_ids', 't'),
      odd,
      { noNullPrototype: true },
    )
    using plaintext = Secret.copy(plaintextText)
    await fc.assert(
      fc.asyncProperty(pin, known, async (name, config) => {
        try {
          await seal(offline, parsePolicy(name, config), plaintext)
        } catch (error) {
          assert.ok(isFault(error), error instanceof Error ? error.stack : String(error))
          assert.notEqual(error.kind, 'internal', error.message)
        }
      }),
      { numRuns: 200 },
    )
  })

  test('recovery requests with any member of another kind', () => {
    const request: JsonObject = {
      holdfast: 'recovery-request',
      version: 1,
      sealed: forms.nul,
      technician: holder,
    }
    const paths = pathsOf(request)
    fc.assert(
      fc.property(fc.constantFrom(...paths), odd, (path, value) => {
        const text = JSON.stringify(edited(request, path, value))
        try {
          parseRecoveryRequest(text)
          assert.ok(parseJson(text, 'it'))
        } catch (error) {
          assert.ok(isFault(error), error instanceof Error ? error.stack : String(error))
        }
      }),
      { numRuns: 300 },
    )
  })
})
