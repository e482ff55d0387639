import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fromBase64url, run, toBase64url } from '@holdfast/base'
import { type CurveName, curveNames, curveOf, toBytes, toNumber } from '@holdfast/crypto'
import { readDirectory } from './directory.ts'
import { keyFileText, makeKey, writeKey } from './key.ts'
import { initialise, rotate } from './rotate.ts'
import { serve } from './serve.ts'
import {
  blindedPoint,
  bodyOf,
  exchange,
  post,
  scratch,
  silentLog,
  startTangd,
  statusOf,
  tangdKeygen,
} from './server-fixture.ts'

// Against the distribution's own tang, clevis, jose and curl: the same directory served by tangd and by
// us must answer alike, but for the strictness named in recovery.ts and request.ts.

const stack = new AsyncDisposableStack()
after(() => stack.disposeAsync())

/** One directory with exchange and signing keys on every curve, one of each hidden, served by both. */
async function bothServers() {
  const directory = stack.use(await scratch()).path
  for (const crv of curveNames) {
    await writeKey(directory, makeKey('signing', crv))
    await writeKey(directory, makeKey('exchange', crv))
  }
  await rotate(directory, { curve: 'P-256' })
  await tangdKeygen(directory)
  await writeKey(directory, makeKey('exchange', 'P-384'))
  const tangd = stack.use(await startTangd(directory))
  const ours = stack.use(await serve({ directory, port: 0, log: silentLog }))
  const { keys } = await readDirectory(directory)
  return { directory, tangd: tangd.port, ours: ours.port, keys }
}

const servers = await bothServers()

function keyOf(use: 'signing' | 'exchange', crv: CurveName, hidden: boolean) {
  const key = servers.keys.find(
    (each) => each.use === use && each.crv === crv && each.hidden === hidden,
  )
  return key ?? assert.fail(`no ${use} key on ${crv}`)
}

test('recoveries are byte-identical to tangd, for every key, curve and thumbprint', async () => {
  const keys = servers.keys.filter((key) => key.use === 'exchange')
  assert.deepEqual([...new Set(keys.map((key) => key.crv))].sort(), [...curveNames])
  assert.ok(keys.some((key) => key.hidden))
  for (const key of keys) {
    for (const thumbprint of key.thumbprints) {
      const request = post(`/rec/${thumbprint}`, blindedPoint(key.crv))
      const ours = await exchange(servers.ours, request)
      assert.equal(statusOf(ours), 200)
      assert.equal(ours, await exchange(servers.tangd, request))
    }
  }
})

for (const crv of curveNames) {
  test(`1000 random points on ${crv} give what tangd gives`, async () => {
    const { kid } = keyOf('exchange', crv, false)
    const isDone = (text: string) => text.split('HTTP/1.1 200').length > 50 && text.endsWith('"}')
    for (let round = 0; round < 20; round += 1) {
      const requests = Array.from({ length: 50 }, () => post(`/rec/${kid}`, blindedPoint(crv)))
      const ours = await exchange(servers.ours, requests.join(''), isDone)
      assert.equal(ours.split('HTTP/1.1 200').length, 51)
      assert.equal(ours, await exchange(servers.tangd, requests.join(''), isDone))
    }
  })
}

const exc = keyOf('exchange', 'P-521', false)
const point = JSON.parse(blindedPoint('P-521'))
const text = (change: object) => JSON.stringify({ ...point, ...change })
const without = (name: string) => text({ [name]: undefined })
const width = curveOf('P-521').size
const flipped = toBase64url(Buffer.from(fromBase64url(point.y)).fill(7, width - 1))

/** Requests that both must answer with the same status. */
const probes: readonly (readonly [string, string])[] = [
  ...['', 'x', '{', '{}', '[]', '[1]', '"s"', '1', 'null', 'true', ' ', `${text({})}x`].map(
    (body) => ['body', post(`/rec/${exc.kid}`, body)] as const,
  ),
  ...[
    text({}),
    `${text({})} \r\n\t`,
    text({ extra: 'x'.repeat(60_000) }),
    text({ key_ops: ['deriveKey'] }),
    text({ key_ops: ['sign', 'deriveKey'] }),
    text({ key_ops: [1, 'deriveKey'] }),
    text({ key_ops: [] }),
    text({ key_ops: ['deriveBits'] }),
    text({ key_ops: 'deriveKey' }),
    text({ key_ops: null }),
    text({ use: 'sig' }),
    text({ use: 'enc' }),
    text({ use: 5 }),
    text({ use: 'sig', key_ops: ['deriveKey'] }),
    text({ use: null, key_ops: ['deriveKey'] }),
    text({ key_ops: ['verify'], kty: 'RSA' }),
    without('kty'),
    text({ kty: 'RSA' }),
    text({ kty: 'ec' }),
    text({ kty: 5 }),
    without('alg'),
    text({ alg: null }),
    text({ alg: 5 }),
    text({ alg: 'ECDH' }),
    text({ alg: 'ES512' }),
    without('crv'),
    text({ crv: 'P-256' }),
    text({ crv: 'P-384' }),
    text({ crv: 'secp256k1' }),
    text({ crv: 521 }),
    without('x'),
    without('y'),
    text({ x: '' }),
    text({ x: 5 }),
    text({ x: point.y }),
    text({ y: flipped }),
    text({ x: `${point.x}=` }),
    text({ x: 'AA', y: 'AA' }),
    text({ x: `${point.x.slice(0, -1)}+` }),
    `{"x":"AA",${text({}).slice(1)}`,
  ].map((body) => ['member', post(`/rec/${exc.kid}`, body)] as const),
  ...[
    keyOf('signing', 'P-521', false).kid,
    keyOf('signing', 'P-256', false).kid,
    keyOf('exchange', 'P-256', true).kid,
    'unknown',
    exc.kid.slice(1),
  ].map((kid) => ['kid', post(`/rec/${kid}`, text({}))] as const),
  ['malformed and unknown', post('/rec/unknown', '{')],
  ...[
    'GET /adv',
    'GET /adv/',
    'GET //adv//',
    'GET /adv?x=1',
    'HEAD /adv',
    'POST /adv',
    'OPTIONS /adv',
    'PUT /adv',
    'DELETE /adv/x',
    'GET /advx',
    'GET /',
    'GET /rec',
    'GET /rec/',
    `GET /rec/${exc.kid}`,
    `PUT /rec/${exc.kid}`,
    `GET /adv/${exc.kid}`,
    'GET /adv/unknown',
    'GET /adv/a.b',
    'GET http://k/adv',
    `GET /${'a'.repeat(4_000)}`,
    `GET /${'a'.repeat(4_200)}`,
  ].map((line) => ['line', `${line} HTTP/1.1\r\nHost: k\r\n\r\n`] as const),
  ...servers.keys
    .filter((key) => key.use === 'signing')
    .flatMap((key) => key.thumbprints)
    .map((thumbprint) => ['adv', `GET /adv/${thumbprint} HTTP/1.1\r\n\r\n`] as const),
  ['slashes', post(`//rec//${exc.kid}`, text({}))],
  [
    'chunked',
    `POST /rec/${exc.kid} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${text({}).length.toString(16)}\r\n${text({})}\r\n0\r\n\r\n`,
  ],
  ['close', post(`/rec/${exc.kid}`, text({})).replace('\r\n', '\r\nConnection: close\r\n')],
  ['1.0', post(`/rec/${exc.kid}`, text({})).replace('HTTP/1.1', 'HTTP/1.0')],
  ['too long', post(`/rec/${exc.kid}`, text({ extra: 'x'.repeat(70_000) }))],
  ['garbage', 'GARBAGE\r\n\r\n'],
  ['lower case', 'get /adv HTTP/1.1\r\n\r\n'],
]

test('the same statuses as tangd over every probe', async () => {
  assert.ok(probes.length >= 70)
  const differences: string[] = []
  const seen = new Set<number>()
  for (const [name, request] of probes) {
    const [ours, theirs] = [
      await exchange(servers.ours, request),
      await exchange(servers.tangd, request),
    ].map(statusOf)
    seen.add(ours ?? 0)
    if (ours !== theirs) {
      differences.push(
        `${name}: ${request.slice(0, 50)} ... ${request.slice(-60)}: ${ours}, tangd ${theirs}`,
      )
    }
  }
  assert.deepEqual(differences, [])
  assert.deepEqual([...seen].sort(), [0, 200, 400, 403, 404, 405, 413, 414])
})

test('stricter than tangd, on purpose: ambiguous points and private members', async () => {
  const { p, size } = curveOf('P-521')
  const small = toNumber(fromBase64url(point.x))
  const status = async (body: string) =>
    statusOf(await exchange(servers.ours, post(`/rec/${exc.kid}`, body)))
  assert.equal(await status(text({ x: toBase64url(toBytes(small + p, size + 1)) })), 400)
  assert.equal(await status(text({ x: toBase64url(toBytes(small, size + 1)) })), 400)
  assert.equal(await status(text({ d: point.x })), 400)
  const [narrow, other] = await narrowPoint()
  assert.equal(await status(narrow), 200, 'shorter coordinates are padded')
  const reply = async (body: string) =>
    bodyOf(await exchange(servers.ours, post(`/rec/${exc.kid}`, body)))
  assert.equal(await reply(narrow), await reply(other))
})

/** A point whose x has a leading zero byte, stripped and at full width. */
async function narrowPoint(): Promise<[string, string]> {
  for (let attempt = 0; attempt < 5_000; attempt += 1) {
    const jwk = JSON.parse(blindedPoint('P-521'))
    const bytes = fromBase64url(jwk.x)
    if (bytes[0] !== 0) continue
    const stripped = bytes.subarray(bytes.findIndex((byte) => byte !== 0))
    return [JSON.stringify({ ...jwk, x: toBase64url(stripped) }), JSON.stringify(jwk)]
  }
  return assert.fail('no such point in 5000')
}

test('curl and jose verify our advertisement with every key in it', async () => {
  const url = `http://127.0.0.1:${servers.ours}/adv`
  const script = `curl -sf ${url} -o "$1/adv.json" && jose fmt -j "$1/adv.json" -Og payload -SyOg keys -AUo- |
    jose jwk use -i- -r -u verify -o "$1/ver.jwks" && jose jws ver -i "$1/adv.json" -k "$1/ver.jwks" -a`
  const folder = stack.use(await scratch()).path
  await run('bash', ['-c', script, 'bash', folder])
  const jws = JSON.parse(await readFile(join(folder, 'adv.json'), 'utf8'))
  const advertised = servers.keys.filter((key) => !key.hidden)
  const { keys } = JSON.parse(fromBase64url(jws.payload).toString())
  assert.equal(keys.length, advertised.length)
  const newest = keys.find((key: { alg: string }) => key.alg === 'ECMR')
  assert.equal(newest.x, advertised.find((key) => key.use === 'exchange')?.publicKey.x)
})

test('tang-show-keys prints our signing keys', async () => {
  const { stdout } = await run('tang-show-keys', [String(servers.ours)])
  const signing = servers.keys.filter((key) => key.use === 'signing' && !key.hidden)
  assert.deepEqual(
    stdout.toString().trim().split('\n').sort(),
    signing.map(({ kid }) => kid).sort(),
  )
})

test('the old signing key vouches for the new advertisement, checked by jose', async () => {
  for (const crv of curveNames) {
    const old = keyOf('signing', crv, true)
    const reply = await exchange(servers.ours, `GET /adv/${old.kid} HTTP/1.1\r\n\r\n`)
    const folder = stack.use(await scratch()).path
    const script = 'cat > "$1/k.jwk" && jose jws ver -i "$2" -k "$1/k.jwk"'
    const advertisement = join(folder, 'adv.json')
    await run('bash', ['-c', 'cat > "$1"', 'bash', advertisement], { input: bodyOf(reply) })
    const input = JSON.stringify(old.publicKey)
    await run('bash', ['-c', script, 'bash', folder, advertisement], { input })
  }
})

for (const crv of curveNames) {
  test(`real clevis binds to us and recovers on ${crv}, across a rotation by us`, async () => {
    await using directory = await scratch()
    await initialise(directory.path, { curve: crv })
    await using server = await serve({ directory: directory.path, port: 0, log: silentLog })
    const url = `http://127.0.0.1:${server.port}`
    const encrypt = async (thp: string) => {
      const words = ['encrypt', 'tang', JSON.stringify({ url, thp })]
      return (await run('clevis', words, { input: 'the secret' })).stdout.toString()
    }
    const decrypt = async (jwe: string) =>
      (await run('clevis', ['decrypt'], { input: jwe })).stdout.toString()
    const signing = async () => {
      const { keys } = await readDirectory(directory.path)
      return keys.find((key) => key.use === 'signing' && !key.hidden) ?? assert.fail()
    }
    const first = await signing()
    const sealed = [await encrypt(first.kid), await encrypt(first.thumbprints[0] ?? '')]
    await server.administration.rotate()
    const second = await signing()
    assert.notEqual(second.kid, first.kid)
    assert.equal(second.crv, crv)
    sealed.push(await encrypt(second.kid))
    for (const jwe of sealed) assert.equal(await decrypt(jwe), 'the secret')
    const { keys } = await server.administration.list()
    const used = keys.filter((key) => key.use === 'exchange')
    assert.deepEqual(
      used.map(({ state, uses }) => [state, uses]),
      [
        ['advertised', 1],
        ['hidden', 2],
      ],
    )
  })
}

test('our rotation of a directory that real tangd serves', async () => {
  await using directory = await scratch()
  await tangdKeygen(directory.path)
  await using tangd = await startTangd(directory.path)
  const url = `http://127.0.0.1:${tangd.port}`
  const encrypt = async () => {
    const { stdout: thp } = await run('tang-show-keys', [String(tangd.port)])
    const config = JSON.stringify({ url, thp: thp.toString().trim() })
    return (await run('clevis', ['encrypt', 'tang', config], { input: 'x' })).stdout.toString()
  }
  const before = await encrypt()
  const { created } = await rotate(directory.path, { curve: 'P-256' })
  const after = await encrypt()
  for (const jwe of [before, after]) {
    assert.equal((await run('clevis', ['decrypt'], { input: jwe })).stdout.toString(), 'x')
  }
  const head = JSON.parse(fromBase64url(after.split('.')[0] ?? '').toString())
  assert.equal(head.kid, created.find((key) => key.use === 'exchange')?.kid)
})

test('keys written by us are keys to jose', async () => {
  for (const use of ['signing', 'exchange'] as const) {
    const key = makeKey(use, 'P-521')
    const { stdout } = await run('jose', ['jwk', 'thp', '-i-'], {
      input: keyFileText(key.jwk, use),
    })
    assert.equal(stdout.toString().trim(), key.kid)
  }
})
