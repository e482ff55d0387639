import assert from 'node:assert/strict'
import { verify } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run, systemClock } from '@holdfast/base'
import type { Reply } from './api-client-fixture.ts'
import { verifyBackup } from './backup-check.ts'
import { chunked } from './backup-fixture.ts'
import { prepareClaim } from './claim.ts'
import { answerAll, manifest, password, started } from './server-fixture.ts'

test('claim, manifest, holders, loss of the host key, recovery: over HTTPS with one pinned identity', async () => {
  await using here = await started()
  await using first = await here.start()
  const { ask } = first
  assert.equal((await ask('GET', '/v1/status')).body.reason, 'claim_needed')
  assert.equal((await ask('GET', '/readyz')).status, 503)
  const token = (await readFile(join(here.directory, 'claim-token'), 'utf8')).trim()
  assert.equal(
    (await ask('POST', '/v1/claim', { token: 'no', user: 'root', password })).status,
    403,
  )
  assert.equal((await ask('POST', '/v1/claim', { token, user: 'root', password })).status, 200)
  const session = await ask('POST', '/v1/sessions', { user: 'root', password })
  const signedIn = { cookie: session.cookie, 'x-csrf-token': String(session.body.csrf) }
  assert.equal(
    (await ask('PUT', '/v1/manifest', { manifest: { ...manifest, holder: {} } }, signedIn)).body
      .error instanceof Object,
    true,
  )
  const set = await ask('PUT', '/v1/manifest', { manifest }, signedIn)
  assert.equal(set.status, 200, JSON.stringify(set.body))
  const change = (set.body.ceremony as { id: string }).id
  assert.equal(
    (await ask('GET', '/v1/status')).body.holders,
    undefined,
    'new shares do not count before they are proven',
  )
  const done = await answerAll(ask, change, ['alice', 'carol'])
  assert.equal(done.body.state, 'done', JSON.stringify(done.body))
  const status = (await ask('GET', '/v1/status')).body
  assert.deepEqual(
    [
      status.state,
      status.generation,
      (status.holders as Record<string, unknown>).provenWithin90Days,
    ],
    ['running', 2, 2],
  )
  await first.stop()
  await rm(join(here.directory, 'host.key'))

  await using second = await here.start()
  assert.equal(second.coordinator.identity.digest, first.coordinator.identity.digest)
  assert.equal((await second.ask('GET', '/v1/status')).body.reason, 'key_missing')
  assert.equal((await second.ask('GET', '/livez')).status, 200)
  assert.equal((await second.ask('GET', '/v1/nodes')).status, 403)
  const stated = (await second.ask('GET', '/v1/identity?nonce=abc')).body
  assert.equal(
    verify(
      'sha256',
      Buffer.from(String(stated.statement)),
      String(stated.key),
      Buffer.from(String(stated.signature), 'base64url'),
    ),
    true,
  )
  const ceremony = await second.ask('POST', '/v1/ceremonies', { kind: 'recovery' })
  assert.equal(ceremony.status, 200, JSON.stringify(ceremony.body))
  const recovered = await answerAll(second.ask, String(ceremony.body.id), ['bob', 'alice'])
  assert.equal(recovered.body.state, 'done', JSON.stringify(recovered.body))
  assert.equal((await second.ask('GET', '/v1/status')).body.state, 'running')
  await second.stop()
})

test('a browser needs its CSRF value and our own origin; a token needs its scope', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask } = running
  const token = (await readFile(join(here.directory, 'claim-token'), 'utf8')).trim()
  await ask('POST', '/v1/claim', { token, user: 'root', password })
  const { cookie, body, setCookie } = await ask('POST', '/v1/sessions', { user: 'root', password })
  assert.match(setCookie, /^__Host-holdfast=.*Path=\/.*HttpOnly.*Secure.*SameSite=Strict/)
  const csrf = String(body.csrf)
  const code = (reply: Reply) => (reply.body.error as { code: string } | undefined)?.code
  assert.equal(code(await ask('PUT', '/v1/manifest', { manifest }, {})), 'user.not_signed_in')
  assert.equal(
    code(await ask('PUT', '/v1/manifest', { manifest }, { cookie })),
    'user.csrf_missing',
  )
  assert.equal(
    code(
      await ask(
        'PUT',
        '/v1/manifest',
        { manifest },
        { cookie, 'x-csrf-token': csrf, origin: 'https://evil.example' },
      ),
    ),
    'user.origin_refused',
  )
  await ask(
    'PUT',
    '/v1/manifest',
    { manifest: { ...manifest, holders: { none: 'there will be no recovery' } } },
    { cookie, 'x-csrf-token': csrf },
  )
  const made = await ask(
    'POST',
    '/v1/tokens',
    { label: 'ci', scopes: ['admin'] },
    { cookie, 'x-csrf-token': csrf },
  )
  const authorization = `Bearer ${made.body.token}`
  assert.equal((await ask('GET', '/v1/users', undefined, { authorization })).status, 200)
  assert.equal(
    code(await ask('POST', '/v1/tokens', { label: 'x', scopes: ['auditor'] }, { authorization })),
    'user.forbidden',
  )
  const audit = await ask('POST', '/v1/audit/verifications', undefined, { authorization })
  assert.equal(audit.body.intact, true)
  const out = await ask('DELETE', '/v1/sessions', undefined, { cookie, 'x-csrf-token': csrf })
  assert.equal(out.status, 200)
  const after = await ask('GET', '/v1/users', undefined, { cookie })
  assert.equal(code(after), 'user.not_signed_in', 'the cookie is worth nothing after the logout')
})

test('wrong passwords lock a user, also across a restart', async () => {
  await using here = await started()
  // The first lock lasts for half a minute, which a slow machine may need for the restart.
  const [began, standing] = [systemClock.now(), { ...systemClock, now: () => began }]
  await using first = await here.start({ clock: standing })
  const token = (await readFile(join(here.directory, 'claim-token'), 'utf8')).trim()
  await first.ask('POST', '/v1/claim', { token, user: 'root', password })
  for (let attempt = 0; attempt < 5; attempt += 1) {
    assert.equal(
      (await first.ask('POST', '/v1/sessions', { user: 'root', password: 'wrong' })).status,
      401,
    )
  }
  await first.stop()
  await using second = await here.start({ clock: standing })
  const locked = await second.ask('POST', '/v1/sessions', { user: 'root', password })
  assert.deepEqual(
    [locked.status, (locked.body.error as { code: string }).code],
    [429, 'user.locked'],
  )
  await second.stop()
})

test('the OpenAPI document has every mounted route', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask } = running
  const { body } = await ask('GET', '/v1/openapi.json')
  const paths = Object.keys(body.paths as object)
  for (const path of ['/v1/status', '/v1/ceremonies/{id}/answers', '/v1/manifest', '/v1/tokens'])
    assert.ok(paths.includes(path), path)
})

test('ways, rotation, sealing and backup over the API; the metrics say the state', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask } = running
  const token = (await readFile(join(here.directory, 'claim-token'), 'utf8')).trim()
  await ask('POST', '/v1/claim', { token, user: 'root', password })
  const { cookie, body } = await ask('POST', '/v1/sessions', { user: 'root', password })
  const admin = { cookie, 'x-csrf-token': String(body.csrf) }
  const added = await ask('POST', '/v1/ways', { kind: 'host-key', config: {} }, admin)
  assert.equal(added.status, 200, JSON.stringify(added.body))
  const way = `/v1/ways/${added.body.id}`
  assert.equal((await ask('POST', `${way}/proofs`, undefined, admin)).status, 200)
  const rotated = await ask('POST', '/v1/data-key/rotations', undefined, admin)
  assert.equal(rotated.body.generation, 2, JSON.stringify(rotated.body))
  const { ways } = (await ask('GET', '/v1/ways', undefined, admin)).body as {
    ways: { id: string }[]
  }
  assert.equal(ways.length, 2)
  assert.equal((await ask('DELETE', `/v1/ways/${ways[0]?.id}`, undefined, admin)).status, 200)
  const last = await ask('DELETE', `/v1/ways/${ways[1]?.id}`, undefined, admin)
  assert.equal((last.body.error as { code: string }).code, 'coordinator.last_way')
  assert.equal((await ask('POST', '/v1/backups', undefined, {})).status, 401)
  const { text } = await ask('POST', '/v1/backups', undefined, admin)
  const pinned = running.coordinator.identity.digest
  assert.equal((await verifyBackup(chunked(text), { pinned })).generation, 2)
  assert.equal((await ask('POST', '/v1/seal', undefined, admin)).status, 200)
  assert.equal((await ask('GET', '/v1/ways', undefined, admin)).status, 403)
  const metrics = await running.server.app.request('/metrics', {}, {})
  assert.match(await metrics.text(), /holdfast_coordinator_state\{state="recovery"\} 1/)
})

test('in recovery, only the token of the console and its own words give the old state up', async () => {
  await using here = await started()
  await using first = await here.start()
  const claim = async () => (await readFile(join(here.directory, 'claim-token'), 'utf8')).trim()
  await first.ask('POST', '/v1/claim', { token: await claim(), user: 'root', password })
  await first.stop()
  await rm(join(here.directory, 'host.key'))
  await using second = await here.start()
  const code = (reply: Reply) => (reply.body.error as { code: string } | undefined)?.code
  const wanted = { user: 'root', password, recoveryOfOldState: 'give up' }
  const guessed = await second.ask('POST', '/v1/claim', { ...wanted, token: 'guess' })
  assert.equal(code(guessed), 'coordinator.claim_refused')
  await prepareClaim(here.directory)
  const silent = { token: await claim(), user: 'root', password }
  assert.equal(code(await second.ask('POST', '/v1/claim', silent)), 'coordinator.already_claimed')
  assert.equal((await second.ask('GET', '/v1/status')).body.reason, 'key_missing')
  const given = await second.ask('POST', '/v1/claim', { ...wanted, token: await claim() })
  assert.equal(given.status, 200, JSON.stringify(given.body))
  assert.equal((await second.ask('GET', '/v1/status')).body.reason, 'manifest_needed')
})

test('where somebody else listens the process says so and ends, whatever it had begun', async () => {
  await using here = await started()
  await using running = await here.start()
  const sink = join(here.directory, 'sink')
  await writeFile(sink, '{"url":"http://127.0.0.1:9/log"}', { mode: 0o600 })
  const program = fileURLToPath(new URL('main.ts', import.meta.url))
  const words = ['--directory', join(here.directory, 'other'), '--port', `${running.server.port}`]
  const { code, stderr } = await run(
    process.execPath,
    [program, ...words, '--tpm', 'off', '--audit-sink', sink],
    { timeout: 60_000, accept: [1] },
  )
  assert.deepEqual([code, JSON.parse(stderr).code], [1, 'coordinator.listen_failed'])
})
