import assert from 'node:assert/strict'
import { connect as connectPlain } from 'node:net'
import { test } from 'node:test'
import { connect } from 'node:tls'
import { systemClock } from '@holdfast/base'
import { sourceOf } from '@holdfast/link'
import { type Ask, client } from './api-client-fixture.ts'
import { equalTexts } from './compare.ts'
import { lockAfter } from './login-attempts.ts'
import { unhurried } from './metrics.ts'
import { RateLimits } from './rate-limits.ts'
import { claimOver, codeOf, manifest, password, signInOver, started } from './server-fixture.ts'
import { LoginDesk } from './sessions.ts'

// A stranger, or somebody with a little power who wants more, at the coordinator's own port.

test('a stranger is known as one before the body is read, however large or wrong it is', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask } = running
  await claimOver(ask, await here.token())
  const large = 'x'.repeat(1024 * 1024)
  assert.equal(codeOf(await ask('PUT', '/v1/manifest', { manifest: large })), 'user.not_signed_in')
  assert.equal(codeOf(await ask('PUT', '/v1/manifest', { wrong: 1 })), 'user.not_signed_in')
  const junk = { user: 'root', password, extra: large }
  const refused = await ask('POST', '/v1/sessions', junk)
  assert.deepEqual([refused.status, codeOf(refused)], [413, 'api.body_too_large'])
  const admin = await signInOver(ask)
  const known = await ask('PUT', '/v1/manifest', { manifest: large }, admin)
  assert.equal(codeOf(known), 'coordinator.manifest_invalid')
  const beyond = await ask('PUT', '/v1/manifest', { manifest: 'x'.repeat(5 * 1024 * 1024) }, admin)
  assert.equal(codeOf(beyond), 'api.body_too_large')
})

test('no method, and no spelling of a path, goes past the question of who asks', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask, server } = running
  const admin = await claimOver(ask, await here.token())
  const status = async (method: string, path: string, headers = {}) =>
    (await server.app.request(`https://coordinator${path}`, { method, headers }, {})).status
  for (const method of ['GET', 'HEAD', 'head'])
    assert.equal(await status(method, '/v1/users'), 401, method)
  assert.equal(await status('HEAD', '/v1/users', admin), 200)
  assert.equal(await status('HEAD', '/livez'), 200)
  for (const method of ['OPTIONS', 'PATCH', 'PROPFIND'])
    assert.ok([401, 404].includes(await status(method, '/v1/users')), method)
  for (const path of [
    '//v1/users',
    '/v1//users',
    '/v1/./users',
    '/v1/x/../users',
    '/v1/users/',
    '/V1/users',
    '/v1/%75sers',
    '/v1/users%2f',
    '/v1/users;x',
    '/v1/users?x=/../../livez',
    '/v1/users#/livez',
  ])
    assert.ok([400, 401, 404].includes(await status('GET', path)), path)
  for (const override of ['x-http-method-override', 'x-method-override', 'x-original-url'])
    assert.equal(await status('GET', '/v1/users', { [override]: '/livez' }), 401, override)
})

test('another page cannot sign anybody in, and no answer is kept by caches', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask, server } = running
  await claimOver(ask, await here.token())
  const evil = { origin: 'https://evil.example' }
  const login = { user: 'root', password }
  assert.equal(codeOf(await ask('POST', '/v1/sessions', login, evil)), 'user.origin_refused')
  const own = { origin: `https://127.0.0.1:${running.server.port}` }
  assert.equal((await ask('POST', '/v1/sessions', login, own)).status, 200)
  const plain = { 'content-type': 'text/plain' }
  assert.equal(codeOf(await ask('POST', '/v1/sessions', login, plain)), 'api.request_invalid')
  const body = '{"user": "root", '
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body }
  const broken = await server.app.request('/v1/sessions', init, {})
  assert.match(await broken.text(), /api.request_invalid/)
  const reply = await server.app.request('/v1/status', {}, {})
  assert.equal(reply.headers.get('cache-control'), 'no-store')
})

test('a token for one task cannot become its user, nor outlive itself', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask } = running
  const admin = await claimOver(ask, await here.token())
  const none = { ...manifest, holders: { none: 'there will be no recovery' } }
  const users = { root: { roles: ['admin', 'auditor'] } }
  assert.equal(
    (await ask('PUT', '/v1/manifest', { manifest: { ...none, users } }, admin)).status,
    200,
  )
  const made = await ask(
    'POST',
    '/v1/tokens',
    { label: 'read', scopes: ['auditor'], days: 2 },
    admin,
  )
  const narrow = { authorization: `Bearer ${made.body.token}` }
  const taken = await ask(
    'PUT',
    '/v1/users/root/password',
    { password: 'a password of mine' },
    narrow,
  )
  assert.deepEqual([taken.status, codeOf(taken)], [403, 'user.forbidden'])
  const child = await ask(
    'POST',
    '/v1/tokens',
    { label: 'on', scopes: ['auditor'], days: 3650 },
    narrow,
  )
  assert.equal(child.body.expires, made.body.expires)
  const changed = await ask('PUT', '/v1/users/root/password', { password: `${password}!` }, admin)
  assert.equal(changed.status, 200, 'a session may')
  assert.equal(
    (await ask('GET', '/v1/tokens', undefined, admin)).status,
    401,
    'and every session ends',
  )
  const { tokens } = (await ask('GET', '/v1/tokens', undefined, narrow)).body as {
    tokens: { label: string; lastUsed?: number }[]
  }
  assert.deepEqual(
    tokens.filter(({ lastUsed }) => lastUsed !== undefined).map(({ label }) => label),
    ['read'],
  )
})

const guess = (ask: Ask, user: string, text = 'wrong') =>
  ask('POST', '/v1/sessions', { user, password: text })

test('guesses that come together are counted one by one, and a name nobody has locks like any', async () => {
  await using here = await started()
  // A lock lasts for half a minute, and twelve passwords may take a slow machine as long.
  const [began, limits] = [systemClock.now(), { all: 1e6, open: 1e6, logins: 1e6 }]
  const clock = { ...systemClock, now: () => began }
  await using running = await here.start({ limits, clock })
  const { ask, coordinator } = running
  await claimOver(ask, await here.token())
  for (const user of ['root', 'nobody']) {
    const replies = await Promise.all(Array.from({ length: 12 }, () => guess(ask, user)))
    const codes = replies.map(codeOf).sort()
    assert.deepEqual(
      [codes.indexOf('user.login_refused'), codes.lastIndexOf('user.locked')],
      [7, 6],
      `${user}: five were looked at and seven were not: ${codes}`,
    )
  }
  const counted = await coordinator.store.read.selectFrom('attempts').selectAll().execute()
  assert.deepEqual(counted.map(({ name }) => name).sort(), [
    'at 127.0.0.1 nobody',
    'at 127.0.0.1 root',
    'known 127.0.0.1 root',
    'source 127.0.0.1',
  ])
  assert.equal(lockAfter(5), 30_000)
  assert.equal(lockAfter(50), 3_600_000)
})

test('logins from one address are limited, also over a restart, and other addresses are not hit', async () => {
  await using here = await started()
  const limits = { all: 1e6, open: 1e6, logins: 3 }
  const [began, clock] = [Date.now(), { ...systemClock, now: () => began }]
  await using first = await here.start({ limits, clock })
  await claimOver(first.ask, await here.token())
  for (const user of ['one', 'two']) await guess(first.ask, user)
  await first.stop()
  await using second = await here.start({ limits, clock })
  const refused = await guess(second.ask, 'root', password)
  assert.deepEqual([refused.status, codeOf(refused)], [429, 'user.too_many_requests'])
  const elsewhere = client(second.server, second.coordinator.identity.digest, '127.0.0.2')
  assert.equal((await guess(elsewhere, 'root', password)).status, 200)
})

test('a clock that was set back keeps nobody out', async () => {
  let now = Date.now()
  const clock = { ...systemClock, now: () => now }
  const limits = new RateLimits(clock, { all: 2, open: 2, logins: 1 })
  const spend = () => limits.take('192.0.2.7')
  spend()
  spend()
  assert.throws(spend, { code: 'user.too_many_requests' })
  now -= 3_600_000
  assert.throws(spend, { code: 'user.too_many_requests' })
  now += 60_000
  spend()
  await using here = await started()
  await using running = await here.start({ limits: { all: 1e6, open: 1e6, logins: 2 }, clock })
  await claimOver(running.ask, await here.token())
  const login = async () => (await guess(running.ask, 'root', password)).status
  assert.deepEqual([await login(), await login()], [200, 429])
  now -= 3_600_000
  assert.equal(await login(), 200)
  const year = 365 * 24 * 3_600_000
  now += year
  for (let tried = 0; tried < 5; tried += 1) {
    now += 60_000
    await guess(running.ask, 'root')
  }
  assert.equal(await login(), 429)
  now -= year
  assert.equal(await login(), 200, 'a lock of a year that never was')
})

test('the limits of the manifest count as soon as it is in force', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask } = running
  const admin = await claimOver(ask, await here.token())
  const limits = { requestsPerMinute: 60 }
  const none = { ...manifest, holders: { none: 'there will be no recovery' }, limits }
  assert.equal((await ask('PUT', '/v1/manifest', { manifest: none }, admin)).status, 200)
  let code: string | undefined
  for (let tried = 0; tried < 6000 && code === undefined; tried += 1) {
    code = codeOf(await ask('GET', '/v1/nodes', undefined, admin))
    await systemClock.sleep(10)
  }
  assert.equal(code, 'user.too_many_requests')
})

test('sources are addresses, and of IPv6 whole networks', () => {
  assert.equal(sourceOf('::ffff:192.0.2.7'), '192.0.2.7')
  assert.equal(sourceOf('192.0.2.7'), '192.0.2.7')
  const network = '2001:db8:0:1::/64'
  for (const address of [
    '2001:db8:0:1::1',
    '2001:0db8:0000:0001:ffff:1:2:3',
    '2001:DB8:0:1::%eth0',
  ])
    assert.equal(sourceOf(address), network, address)
  assert.notEqual(sourceOf('2001:db8:0:2::1'), network)
  assert.equal(sourceOf('::1'), '0:0:0:0::/64')
  const limits = new RateLimits(systemClock, { all: 2, open: 1, logins: 1 })
  limits.take('2001:db8::1')
  limits.take('2001:db8::2')
  assert.throws(() => limits.take('2001:db8::3'), { code: 'user.too_many_requests' })
})

test('comparing tells equal from different, and nothing equals an empty text', () => {
  assert.equal(equalTexts('abc', 'abc'), true)
  for (const [one, other] of [
    ['abc', 'abd'],
    ['abc', 'abcd'],
    ['', ''],
    ['a', ''],
  ] as const)
    assert.equal(equalTexts(one, other), false)
})

test('whoever says nothing is let go: no handshake, no headers, no body', async () => {
  await using here = await started()
  await using running = await here.start()
  const { server, port } = running.server
  // The times themselves are Node's to keep; what is ours is that they are short.
  assert.deepEqual(
    [server.headersTimeout, server.requestTimeout, server.keepAliveTimeout],
    [10_000, 60_000, 10_000],
  )
  const secure = connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
  await new Promise<void>((resolve) => secure.once('secureConnect', () => resolve()))
  const silent = connectPlain(port, '127.0.0.1')
  secure.write('POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n')
  const ended = [secure, silent].map(
    (socket) =>
      new Promise<void>((resolve) => {
        socket.on('error', () => undefined)
        socket.once('close', () => resolve())
        socket.resume()
      }),
  )
  await running.stop()
  silent.destroy()
  await Promise.all(ended)
})

test('a request that has begun is answered while the server stops, and nobody new is taken', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask, server } = running
  await claimOver(ask, await here.token())
  const login = guess(ask, 'root', password)
  // The password is being checked by then, which takes longer than to begin stopping.
  await until(async () => {
    const rows = await running.coordinator.store.read.selectFrom('attempts').selectAll().execute()
    return rows.some(({ name, count }) => name.startsWith('source') && count === 2)
  })
  const stopping = server[Symbol.asyncDispose]()
  await assert.rejects(ask('GET', '/v1/status'), { code: 'ECONNREFUSED' })
  assert.equal((await login).status, 200)
  await stopping
  await server[Symbol.asyncDispose]()
})

async function until(check: () => Promise<boolean>): Promise<void> {
  for (let tried = 0; tried < 6000; tried += 1) {
    if (await check()) return
    await systemClock.sleep(10)
  }
  throw new Error('it never happened')
}

test('metrics are for whoever reaches the port, but not as often as they like', async () => {
  await using here = await started()
  const [began, limits] = [systemClock.now(), { all: 100, open: 3, logins: 10 }]
  const clock = { ...systemClock, now: () => began }
  await using running = await here.start({ limits, clock })
  const scrape = async (remoteAddress: string) => {
    const incoming = { socket: { remoteAddress } }
    return (await running.server.app.request('/metrics', {}, { incoming })).status
  }
  const statuses: number[] = []
  for (let turn = 0; turn < 4; turn += 1) statuses.push(await scrape('192.0.2.1'))
  assert.deepEqual(statuses, [200, 200, 200, 429])
  assert.equal(await scrape('192.0.2.2'), 200)
  let made = 0
  const { promise, resolve } = Promise.withResolvers<number>()
  const render = unhurried(async () => {
    made += 1
    return await promise
  })
  const all = Array.from({ length: 50 }, () => render())
  resolve(7)
  assert.deepEqual(new Set(await Promise.all(all)), new Set([7]))
  assert.equal(made, 1)
})

test('whatever hashes a password waits in one line, and the line has an end', async () => {
  await using here = await started()
  await using running = await here.start()
  const { store } = running.coordinator
  const desk = new LoginDesk({ store, clock: systemClock, perMinute: () => 10 })
  let atOnce = 0
  let most = 0
  const tasks = Array.from({ length: 40 }, () =>
    desk.inTurn(async () => {
      atOnce += 1
      most = Math.max(most, atOnce)
      await new Promise((resolve) => setImmediate(resolve))
      atOnce -= 1
    }),
  )
  const ended = await Promise.allSettled(tasks)
  assert.equal(most, 1)
  assert.equal(ended.filter(({ status }) => status === 'rejected').length, 8)
})
