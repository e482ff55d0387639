import assert from 'node:assert/strict'
import { chmod, mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault, run } from '@holdfast/base'
import { adminClient } from './admin-client.ts'
import { offlineAdministration } from './administration.ts'
import { initialise } from './rotate.ts'
import { serve } from './serve.ts'
import { scratch, silentLog } from './server-fixture.ts'

async function withServer() {
  await using stack = new AsyncDisposableStack()
  const { path } = stack.use(await scratch())
  const socket = join(path, 'run', 'admin.sock')
  const directory = join(path, 'keys')
  const options = { directory, port: 0, log: silentLog, adminSocket: socket }
  stack.use(await serve({ ...options, initialise: { curve: 'P-256' } }))
  const owned = stack.move()
  return { path, socket, directory, options, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

const refuses = (code: string) => (error: unknown) => isFault(error, code)

test('the client over the socket does what the operations on the directory do', async () => {
  await using server = await withServer()
  const client = adminClient(server.socket)
  const { created } = await client.rotate({ curve: 'P-384', uses: ['exchange'] })
  assert.deepEqual(
    created.map(({ crv }) => crv),
    ['P-384'],
  )
  await client.addPrefix('a')
  await client.markCompromised([created[0]?.kid ?? ''], 'lost')
  const inventory = await client.list()
  assert.deepEqual(inventory, await offlineAdministration(server.directory).list())
  assert.equal(inventory.keys.length, 4)
  assert.equal(inventory.keys.filter((key) => key.compromised?.note === 'lost').length, 1)
  const status = await client.status()
  assert.equal(status.health.status, 'ok')
  assert.equal(status.health.prefixes, 1)
  assert.equal(status.directory, server.directory)
})

test('faults cross the socket with code, kind, hint and details', async () => {
  await using server = await withServer()
  const client = adminClient(server.socket)
  const { keys } = await client.list()
  const kid = keys.find((key) => key.use === 'exchange')?.kid ?? ''
  await assert.rejects(client.retire({ kids: [kid] }), (error) => {
    assert.ok(isFault(error, 'keyserver.retire_refused'))
    assert.equal(error.kind, 'refused')
    assert.match(error.hint ?? '', /rotate/)
    assert.ok(Array.isArray(error.details?.kept))
    return true
  })
  await assert.rejects(client.revokePrefix('none'), refuses('keyserver.prefix_absent'))
  await assert.rejects(client.addPrefix('NO'), refuses('keyserver.prefix_invalid'))
})

test('plain curl can administer, and nonsense is answered with a fault', async () => {
  await using server = await withServer()
  const curl = async (path: string, body: string, ...more: string[]) => {
    const words = ['-s', '--unix-socket', server.socket, '-d', '@-', ...more, `http://x/${path}`]
    return JSON.parse((await run('curl', words, { input: body })).stdout.toString())
  }
  assert.equal((await curl('status', '')).health.status, 'ok')
  assert.equal((await curl('list', '{}')).keys.length, 2)
  for (const [path, body] of [
    ['rotate', '{"curve":"P-1"}'],
    ['rotate', '{"unknown":1}'],
    ['hold', '{}'],
    ['mark-compromised', '{"kids":[],"note":""}'],
    ['no-such', '{}'],
    ['constructor', '{}'],
  ] as const) {
    assert.equal((await curl(path, body)).code, 'keyserver.admin_invalid', path)
  }
  assert.equal((await curl('rotate', '{')).code, 'base.bad_json')
  assert.equal(
    (await curl('rotate', `{"prefix":"${'a'.repeat(2_000_000)}"}`)).code,
    'keyserver.admin_invalid',
  )
  assert.equal((await curl('list', '', '-X', 'DELETE')).code, 'keyserver.admin_invalid')
  assert.equal((await adminClient(server.socket).list()).keys.length, 2, 'nothing was changed')
})

test('only the owner may connect, and a folder of others is refused', async () => {
  await using server = await withServer()
  assert.equal((await stat(server.socket)).mode & 0o777, 0o600)
  await using other = await scratch()
  const folder = join(other.path, 'open')
  await mkdir(folder)
  await chmod(folder, 0o777)
  await assert.rejects(
    serve({ ...server.options, adminSocket: join(folder, 'a.sock') }),
    refuses('keyserver.permissions_loose'),
  )
  await assert.rejects(serve(server.options), refuses('keyserver.listen_failed'))
})

test('without a server the client says so, and offline operations that need one as well', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  await assert.rejects(
    adminClient(join(directory.path, 'none.sock')).status(),
    refuses('keyserver.admin_unreachable'),
  )
  const offline = offlineAdministration(directory.path)
  await assert.rejects(offline.status(), refuses('keyserver.not_running'))
  await assert.rejects(offline.reload(), refuses('keyserver.not_running'))
  await offline.rotate()
  await offline.addPrefix('b')
  await offline.hold('why')
  assert.equal((await offline.list()).hold?.reason, 'why')
  await offline.release()
  await offline.revokePrefix('b')
  assert.deepEqual((await offline.list()).prefixes, [])
})

test('a socket left by a killed server is taken over', async () => {
  await using server = await withServer()
  const left = join(server.path, 'run', 'left.sock')
  const script =
    'import { createServer } from "node:net"; createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))'
  await run(process.execPath, ['--input-type=module', '-e', script, left], { accept: [137] })
  assert.ok((await stat(left)).isSocket())
  await using _ = await serve({ ...server.options, adminSocket: left })
  assert.equal((await adminClient(left).status()).health.status, 'ok')
})
