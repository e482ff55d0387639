import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import { type AddressInfo, createServer as listener } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '@holdfast/base'
import { createFetch } from './http.ts'

test('https is believed by the machine’s own authorities only', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-https-'))
  try {
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
    const subject = [
      '-subj',
      '/CN=localhost',
      '-addext',
      'subjectAltName=DNS:localhost,IP:127.0.0.1',
    ]
    const kind = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '2',
    ]
    await run('openssl', ['req', '-x509', ...kind, ...subject, '-keyout', key, '-out', certificate])
    const asked: string[] = []
    const server = createServer(
      { key: await readFile(key), cert: await readFile(certificate) },
      (incoming, outgoing) => {
        asked.push(incoming.url ?? '')
        outgoing.end('{}')
      },
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo // it listens on TCP
    const options = { method: 'GET', signal: AbortSignal.timeout(60_000) } as const
    await assert.rejects(createFetch()(`https://127.0.0.1:${port}/adv`, options), {
      code: 'seal.server_unreachable',
      message: /self-signed certificate/,
    })
    assert.deepEqual(asked, [])
    const program = `const { createFetch } = await import(${JSON.stringify(new URL('http.ts', import.meta.url).href)})
      const { status, body } = await createFetch()('https://127.0.0.1:${port}/adv', { method: 'GET', signal: AbortSignal.timeout(60000) })
      console.log(status, body)`
    const believed = await run(process.execPath, ['--input-type=module', '-e', program], {
      environment: { NODE_EXTRA_CA_CERTS: certificate },
    })
    assert.equal(believed.stdout.toString().trim(), '200 {}')
    server.close()
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('an abort that comes while a connection is begun ends it', async () => {
  const server = listener() // it never answers
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // it listens on TCP
  for (const scheme of ['http', 'https']) {
    const stop = new AbortController()
    const options = { method: 'GET', signal: stop.signal } as const
    const fetch = createFetch({ connect: 600_000, total: 600_000 })
    const asked = fetch(`${scheme}://127.0.0.1:${port}/adv`, options)
    stop.abort(new Error('enough'))
    await assert.rejects(asked, { message: 'enough' })
  }
  server.close()
  await once(server, 'close')
})
