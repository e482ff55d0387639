import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmod, readdir, rename, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { freePort, isFault, run } from '@holdfast/base'
import { standStill } from '@holdfast/base/stand-still-fixture'
import { curveNames } from '@holdfast/crypto'
import { readDirectory } from './directory.ts'
import { makeKey, writeKey } from './key.ts'
import { initialise } from './rotate.ts'
import { type ServeOptions, serve } from './serve.ts'
import {
  blindedPoint,
  bodyOf,
  exchange,
  isComplete,
  post,
  scratch,
  silentLog,
  startProcess,
  statusOf,
  tangdKeygen,
  until,
} from './server-fixture.ts'

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: k\r\n\r\n`

async function serveScratch(options: Partial<ServeOptions> = {}) {
  await using stack = new AsyncDisposableStack()
  const directory = stack.use(await scratch()).path
  const server = stack.use(
    await serve({
      directory,
      port: 0,
      log: silentLog,
      initialise: { curve: 'P-256' },
      watchInterval: 50,
      ...options,
    }),
  )
  const owned = stack.move()
  const { port, administration } = server
  const status = async (request: string) => statusOf(await exchange(port, request))
  const keys = async () => (await readDirectory(directory)).keys
  return {
    directory,
    server,
    port,
    administration,
    status,
    keys,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

const refuses = (code: string) => (error: unknown) => isFault(error, code)

test('an empty, absent or keyless directory is refused unless told to make keys', async () => {
  await using directory = await scratch()
  const path = directory.path
  const start = (options: Partial<ServeOptions> = {}) =>
    serve({ directory: path, port: 0, log: silentLog, ...options })
  await assert.rejects(start(), refuses('keyserver.directory_empty'))
  assert.deepEqual(await readdir(path), [], 'nothing was written')
  await assert.rejects(
    start({ directory: join(path, 'absent') }),
    refuses('keyserver.directory_unreadable'),
  )
  await writeKey(path, makeKey('signing', 'P-256'))
  await assert.rejects(start(), refuses('keyserver.directory_empty'))
  await assert.rejects(start({ initialise: {} }), refuses('keyserver.directory_not_empty'))
  const [name] = await readdir(path).then((names) => names.filter((each) => each.endsWith('.jwk')))
  await unlink(join(path, name ?? ''))
  await using server = await start({ initialise: {} })
  assert.equal(statusOf(await exchange(server.port, get('/adv'))), 200)
})

test('keys or a directory that others may change are refused', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  const start = () => serve({ directory: directory.path, port: 0, log: silentLog })
  await chmod(directory.path, 0o770)
  await assert.rejects(start(), refuses('keyserver.permissions_loose'))
  await chmod(directory.path, 0o700)
  const [key] = (await readDirectory(directory.path)).keys
  await chmod(join(directory.path, key?.file ?? ''), 0o460)
  await assert.rejects(start(), refuses('keyserver.permissions_loose'))
})

test('tangd-keygen, tangd-rotate-keys and rm act on the directory while we serve it', async () => {
  await using directory = await scratch()
  await tangdKeygen(directory.path)
  await using server = await serve({
    directory: directory.path,
    port: 0,
    log: silentLog,
    watchInterval: 50,
    limits: { rate: 0 },
  })
  const status = async (request: string) => statusOf(await exchange(server.port, request))
  const keys = async () => (await readDirectory(directory.path)).keys
  const exchangeKey = (await keys()).find((key) => key.use === 'exchange') ?? assert.fail()
  const recovery = post(`/rec/${exchangeKey.kid}`, blindedPoint('P-521'))
  let gaps = 0
  const rotation = run('tangd-rotate-keys', ['-d', directory.path])
  for (let done = false; !done; ) {
    done = await Promise.race([rotation.then(() => true), status(get('/adv')).then(() => false)])
    if ((await status(get('/adv'))) !== 200 || (await status(recovery)) !== 200) gaps += 1
  }
  assert.equal(gaps, 0, 'the old or the new keys were advertised at every moment')
  const fresh = (await keys()).find((key) => key.use === 'signing' && !key.hidden) ?? assert.fail()
  await until('only the new keys are advertised', async () => {
    const { stdout } = await run('tang-show-keys', [String(server.port)])
    return stdout.toString().trim() === fresh.kid
  })
  assert.equal(await status(recovery), 200)
  await tangdKeygen(directory.path)
  await until('both sets are advertised', async () => {
    const jws = JSON.parse(bodyOf(await exchange(server.port, get('/adv'))))
    return jws.signatures?.length === 2
  })
  await rm(join(directory.path, `.${exchangeKey.kid}.jwk`))
  await until('the removed key is gone', async () => (await status(recovery)) === 404)
})

test('when every key is hidden and none made, what was advertised stays so while it exists', async () => {
  await using server = await serveScratch()
  const keys = await server.keys()
  for (const { file } of keys) {
    await rename(join(server.directory, file), join(server.directory, `.${file}`))
  }
  await until('the state is reported', async () => {
    const health = JSON.parse(bodyOf(await exchange(server.port, get('/healthz'))))
    return health.status === 'degraded' && health.hidden === 2
  })
  assert.equal(await server.status(get('/adv')), 200)
  for (const { file } of keys) await rm(join(server.directory, `.${file}`))
  // Nothing is advertised as soon as either is gone; what recoveries are told depends on both.
  await until('both are gone', async () => {
    const health = JSON.parse(bodyOf(await exchange(server.port, get('/healthz'))))
    return health.hidden === 0
  })
  assert.equal(await server.status(get('/adv')), 404)
  const kid = keys.find((key) => key.use === 'exchange')?.kid
  assert.equal(await server.status(post(`/rec/${kid}`, blindedPoint('P-256'))), 500, 'as tangd')
  assert.equal(await server.status(get('/healthz')), 503)
  assert.deepEqual(
    (await readdir(server.directory)).filter((name) => name.endsWith('.jwk')),
    [],
  )
})

test('a damaged or loose new file changes nothing for the others, and health says so', async () => {
  await using server = await serveScratch()
  await writeFile(join(server.directory, 'half.jwk'), '{"kty":"EC",', { mode: 0o600 })
  const loose = makeKey('exchange', 'P-256')
  const name = `${loose.kid}.jwk`
  await using elsewhere = await scratch()
  await writeKey(elsewhere.path, loose)
  await chmod(join(elsewhere.path, name), 0o666)
  // Loose from the start: one that was served before stays served.
  await rename(join(elsewhere.path, name), join(server.directory, name))
  await until('both are reported', async () => {
    const reply = bodyOf(await exchange(server.port, get('/healthz')))
    return JSON.parse(reply).reasons.includes('2 key files have a problem')
  })
  assert.equal(await server.status(get('/adv')), 200)
  assert.equal(await server.status(post(`/rec/${loose.kid}`, blindedPoint('P-256'))), 404)
})

test('a prefix answers below its own path with its own key, and is revoked alone', async () => {
  await using server = await serveScratch()
  const { administration, port } = server
  const { created } = await administration.addPrefix('web-17')
  await administration.addPrefix('db-1', { curve: 'P-521' })
  const url = `http://127.0.0.1:${port}`
  const { stdout: thp } = await run('tang-show-keys', [String(port)])
  const encrypt = async (base: string) => {
    const config = JSON.stringify({ url: base, thp: thp.toString().trim() })
    return (await run('clevis', ['encrypt', 'tang', config], { input: 'x' })).stdout.toString()
  }
  const decrypt = (jwe: string) => run('clevis', ['decrypt'], { input: jwe, accept: [0, 1] })
  const sealed = await Promise.all([url, `${url}/p/web-17`, `${url}/p/db-1`].map(encrypt))
  for (const jwe of sealed) assert.equal((await decrypt(jwe)).code, 0)
  const [kid] = created.map((key) => key.kid)
  const recover = (path: string) => server.status(post(`${path}/rec/${kid}`, blindedPoint('P-256')))
  assert.equal(await recover('/p/web-17'), 200)
  assert.equal(await recover(''), 404, 'not on the main path')
  assert.equal(await recover('/p/db-1'), 404, 'nor below another prefix')
  await administration.revokePrefix('web-17')
  assert.deepEqual(await Promise.all(['', '/p/web-17', '/p/db-1'].map(recover)), [404, 404, 404])
  assert.equal(await server.status(get('/p/web-17/adv')), 404)
  assert.deepEqual(
    await Promise.all(sealed.map(async (jwe) => (await decrypt(jwe)).code)),
    [0, 1, 0],
  )
  const inventory = await administration.list()
  assert.deepEqual(inventory.prefixes, ['db-1'])
  const gone = inventory.keys.find((key) => key.kid === kid)
  assert.equal(gone?.state, 'retired')
  assert.equal(gone?.reason, 'prefix web-17 revoked')
})

test('a destroyed key that comes back as a file is not served', async () => {
  await using server = await serveScratch()
  const { created } = await server.administration.addPrefix('a')
  const [key] = (await server.keys()).filter((each) => each.prefix === 'a')
  const { stdout } = await run('cat', [join(server.directory, key?.file ?? '')])
  await server.administration.revokePrefix('a')
  await writeFile(join(server.directory, 'again.jwk'), stdout, { mode: 0o440 })
  await server.administration.reload()
  const kid = created[0]?.kid
  assert.equal(await server.status(post(`/rec/${kid}`, blindedPoint('P-256'))), 404)
})

test('on hold every recovery is 503 with Retry-After, over a restart too', async () => {
  await using server = await serveScratch()
  const key = (await server.keys()).find((each) => each.use === 'exchange')
  const request = post(`/rec/${key?.kid}`, blindedPoint('P-256'))
  await server.administration.hold('waiting for two people')
  const reply = await exchange(server.port, request)
  assert.equal(statusOf(reply), 503)
  assert.match(reply, /\r\nRetry-After: [1-9]/)
  assert.equal(await server.status(get('/adv')), 200)
  await using second = await serve({ directory: server.directory, port: 0, log: silentLog })
  assert.equal(statusOf(await exchange(second.port, request)), 503)
  assert.equal((await second.administration.list()).hold?.reason, 'waiting for two people')
  await second.administration.release()
  assert.equal(statusOf(await exchange(second.port, request)), 200)
  await until('the first server notices', async () => (await server.status(request)) === 200)
})

test('pipelined requests are answered in order, each whole', async () => {
  await using server = await serveScratch()
  const key = (await server.keys()).find((each) => each.use === 'exchange')
  const request = post(`/rec/${key?.kid}`, blindedPoint('P-256'))
  const all = [get('/adv'), request, get('/nothing'), request, get('/healthz'), post('/rec/x', '{')]
  const text = await exchange(
    server.port,
    all.join(''),
    (reply) =>
      reply.split('HTTP/1.1').length > 6 && isComplete(reply.slice(reply.lastIndexOf('HTTP/1.1'))),
  )
  assert.deepEqual(
    text.match(/HTTP\/1\.1 \d+/g)?.map((line) => line.slice(9)),
    ['200', '200', '404', '200', '200', '400'],
  )
})

test('thousands of requests in one packet are answered without running out of stack', async () => {
  await using server = await serveScratch({ limits: { rate: 0 } })
  const count = 20_000
  const text = await exchange(
    server.port,
    'GET / HTTP/1.1\r\n\r\n'.repeat(count),
    (reply) => reply.length >= count * 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'.length,
  )
  assert.equal(text.split('HTTP/1.1 404').length - 1, count)
})

test('a request that drips in byte by byte is answered like any other', async () => {
  await using server = await serveScratch({ limits: { requestTime: 600_000 } })
  const kid = (await server.keys()).find((each) => each.use === 'exchange')?.kid
  const request = post(`/rec/${kid}`, blindedPoint('P-256'))
  const whole = await exchange(server.port, request)
  const script =
    'exec 3<>/dev/tcp/127.0.0.1/$1; while IFS= read -r -n1 -d "" c; do printf "%s" "$c" >&3; done; timeout 60 cat <&3'
  const { stdout } = await run('bash', ['-c', script, 'bash', String(server.port)], {
    input: request.replace('\r\n', '\r\nConnection: close\r\n'),
  })
  assert.equal(stdout.toString(), whole)
})

test('a client that half-closes gets its answer, and one that wants to close is closed', async () => {
  await using server = await serveScratch()
  const kid = (await server.keys()).find((each) => each.use === 'exchange')?.kid
  const request = post(`/rec/${kid}`, blindedPoint('P-256'))
  const script = 'exec 3<>/dev/tcp/127.0.0.1/$1; cat >&3; timeout 60 cat <&3'
  const closing = request.replace('\r\n', '\r\nConnection: close\r\n')
  const { stdout } = await run('bash', ['-c', script, 'bash', String(server.port)], {
    input: closing,
  })
  assert.equal(statusOf(stdout.toString()), 200)
  const { stdout: half } = await run('socat', ['-t60', '-', `TCP4:127.0.0.1:${server.port}`], {
    input: request,
  })
  assert.equal(statusOf(half.toString()), 200)
})

test('curl waits for 100-continue and sends chunks', async () => {
  await using server = await serveScratch()
  const kid = (await server.keys()).find((each) => each.use === 'exchange')?.kid
  const url = `http://127.0.0.1:${server.port}/rec/${kid}`
  const words = ['-sf', '--data-binary', '@-', url]
  for (const header of ['Expect: 100-continue', 'Transfer-Encoding: chunked']) {
    const { stdout } = await run('curl', ['-H', header, ...words], { input: blindedPoint('P-256') })
    assert.equal(JSON.parse(stdout.toString()).crv, 'P-256')
  }
})

test('slow and silent connections are ended, without harm to the others', async () => {
  await using server = await serveScratch({ limits: { requestTime: 1_500, idleTime: 2_000 } })
  const slow = exchange(server.port, 'POST /rec/x HTTP/1.1\r\nContent-Length: 10\r\n\r\n')
  const silent = exchange(server.port, '')
  assert.equal(await server.status(get('/adv')), 200)
  assert.equal(statusOf(await slow), 408)
  assert.equal(await silent, '')
})

test('a request that arrived while the server stood still is answered', async () => {
  await using server = await serveScratch({ limits: { requestTime: 2_000, idleTime: 2_000 } })
  for (const [begun, rest] of [
    ['', get('/adv')],
    [get('/adv').slice(0, 9), get('/adv').slice(9)],
  ] as const) {
    const socket = connect({ host: '127.0.0.1', port: server.port })
    let text = ''
    socket.on('data', (chunk) => {
      text += chunk
    })
    await once(socket, 'connect')
    socket.write(begun)
    await until('it is open', async () => (await server.administration.status()).connections > 0)
    socket.write(rest)
    standStill(3_000)
    await until('an answer, or the end', async () => isComplete(text) || socket.closed)
    assert.equal(statusOf(text), 200)
    socket.destroy()
    await until(
      'it is closed',
      async () => (await server.administration.status()).connections === 0,
    )
  }
})

test('too many connections and too high a rate are told to come back', async () => {
  await using server = await serveScratch({ limits: { connections: 2 } })
  const open = [exchange(server.port, ''), exchange(server.port, '')]
  await until('both are open', async () => (await server.administration.status()).connections === 2)
  const refused = await exchange(server.port, '', (text) => text.includes('503'))
  assert.match(refused, /^HTTP\/1\.1 503 .*\r\nRetry-After/)
  await using limited = await serveScratch({ limits: { rate: 0.001, burst: 4 } })
  const statuses: number[] = []
  for (let index = 0; index < 6; index += 1) statuses.push(await limited.status(get('/adv')))
  assert.deepEqual(statuses, [200, 200, 200, 200, 503, 503])
  assert.equal(await limited.status(get('/healthz')), 200, 'health is not limited')
  await server.server[Symbol.asyncDispose]()
  await Promise.all(open)
})

test('one address cannot take every connection', async () => {
  await using server = await serveScratch({ limits: { connections: 4, connectionsPerAddress: 2 } })
  const open = [exchange(server.port, ''), exchange(server.port, '')]
  const count = async () => (await server.administration.status()).connections
  await until('both are open', async () => (await count()) === 2)
  assert.match(await exchange(server.port, ''), /^HTTP\/1\.1 503 /)
  const { stdout } = await run('curl', [
    ...['-s', '-o', '/dev/null', '-w', '%{http_code}', '--interface', '127.0.0.2'],
    `http://127.0.0.1:${server.port}/adv`,
  ])
  assert.equal(stdout.toString(), '200')
  await server.server[Symbol.asyncDispose]()
  await Promise.all(open)
})

test('a full queue answers 503 at once and loses nobody', async () => {
  for (const queue of [0, 3]) {
    await using server = await serveScratch({ limits: { queue }, initialise: { curve: 'P-521' } })
    const kid = (await server.keys()).find((each) => each.use === 'exchange')?.kid
    const request = post(`/rec/${kid}`, blindedPoint('P-521'))
    const replies = await Promise.all(
      Array.from({ length: 60 }, () => exchange(server.port, request)),
    )
    for (const reply of replies) {
      if (statusOf(reply) === 503) assert.match(reply, /\r\nRetry-After: [1-9]/)
      else assert.equal(statusOf(reply), 200)
    }
    const served = replies.filter((reply) => statusOf(reply) === 200).length
    assert.equal(served > 0, queue > 0)
  }
})

test('last use survives a restart', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  const options = { directory: directory.path, port: 0, log: silentLog }
  const use = async (times: number) => {
    await using server = await serve(options)
    const { keys } = await server.administration.list()
    const kid = keys.find((key) => key.use === 'exchange')?.kid
    for (let index = 0; index < times; index += 1) {
      await exchange(server.port, post(`/rec/${kid}`, blindedPoint('P-256')))
    }
  }
  const before = Date.now()
  await use(2)
  await use(1)
  await use(0)
  await using server = await serve(options)
  const { keys } = await server.administration.list()
  const key = keys.find((each) => each.use === 'exchange')
  assert.equal(key?.uses, 3)
  assert.ok((key?.lastUsed ?? 0) >= before)
})

test('a recovery counts as a use from the moment it is answered', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  await using server = await serve({ directory: directory.path, port: 0, log: silentLog })
  const { administration, port } = server
  const exchangeKey = async () =>
    (await administration.list()).keys.find((key) => key.use === 'exchange') ?? assert.fail()
  const { kid } = await exchangeKey()
  for (const times of [1, 2, 3]) {
    assert.equal(statusOf(await exchange(port, post(`/rec/${kid}`, blindedPoint('P-256')))), 200)
    assert.equal((await exchangeKey()).uses, times)
  }
})

test('one audit line per recovery, with what an auditor asks for and no secret', async () => {
  await using directory = await scratch()
  const audit = join(directory.path, 'audit.log')
  await using server = await serveScratch({ audit })
  const kid = (await server.keys()).find((each) => each.use === 'exchange')?.kid
  const body = blindedPoint('P-256')
  for (const path of [`/rec/${kid}`, '/rec/unknown', `/p/none/rec/${kid}`]) {
    await exchange(server.port, post(path, body))
  }
  await server.server[Symbol.asyncDispose]()
  const { stdout } = await run('cat', [audit])
  const lines = stdout
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    lines.map(({ status, kid: id, prefix }) => [status, id, prefix]),
    [
      [200, kid, undefined],
      [404, 'unknown', undefined],
      [404, kid, 'none'],
    ],
  )
  assert.ok(lines.every((line) => line.source === '127.0.0.1' && line.microseconds > 0))
  assert.equal(lines[0].curve, 'P-256')
  assert.ok(!stdout.toString().includes(JSON.parse(body).x))
  assert.equal((await stat(audit)).mode & 0o777, 0o640)
})

test('the process prints its port, serves, and ends cleanly on a signal', async () => {
  await using directory = await scratch()
  const folder = join(directory.path, 'keys')
  const port = await freePort() // nobody else is given it when it is free again
  const words = ['--directory', folder, '--init', 'P-384', '--port', `${port}`, '--log', 'error']
  const server = await startProcess(words)
  assert.equal(server.port, port)
  assert.equal(statusOf(await exchange(server.port, get('/adv'))), 200)
  await server[Symbol.asyncDispose]()
  await assert.rejects(exchange(server.port, get('/adv')))
  await assert.rejects(stat(dirname(server.adminSocket)))
  assert.deepEqual(server.lines, [])
  await using any = await startProcess(['--directory', folder, '--log', 'error'])
  assert.equal(statusOf(await exchange(any.port, get('/adv'))), 200)
  await assert.rejects(startProcess(['--directory', directory.path]), /keyserver\.directory_empty/)
})

test('an abort ends the server, also one that comes while it starts', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  // Nobody else is given the port when it is free again.
  const options = { directory: directory.path, port: await freePort(), log: silentLog }
  const early = new AbortController()
  const starting = serve(options, early.signal)
  early.abort()
  const first = await starting
  await assert.rejects(exchange(first.port, get('/adv')))
  const late = new AbortController()
  const second = await serve(options, late.signal)
  assert.equal(statusOf(await exchange(second.port, get('/adv'))), 200)
  late.abort()
  await second[Symbol.asyncDispose]()
  await assert.rejects(exchange(second.port, get('/adv')))
})

test('self-test and proof run on every curve when a server starts', async () => {
  await using directory = await scratch()
  for (const crv of curveNames) await writeKey(directory.path, makeKey('exchange', crv))
  await writeKey(directory.path, makeKey('signing', 'P-256'))
  const wrong = makeKey('exchange', 'P-521')
  await writeKey(directory.path, {
    ...wrong,
    jwk: { ...wrong.jwk, d: makeKey('exchange', 'P-521').jwk.d },
  })
  await using server = await serve({ directory: directory.path, port: 0, log: silentLog })
  assert.equal(
    statusOf(await exchange(server.port, post(`/rec/${wrong.kid}`, blindedPoint('P-521')))),
    404,
  )
  const jws = JSON.parse(bodyOf(await exchange(server.port, get('/adv'))))
  const { keys } = JSON.parse(Buffer.from(jws.payload, 'base64url').toString())
  assert.equal(keys.filter((key: { alg: string }) => key.alg === 'ECMR').length, 3)
})
