import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { freePort } from './free-port.ts'

test('a free port can be listened on, and an address of nobody here has none', async () => {
  const port = await freePort()
  const server = createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  server.close()
  assert.ok(port > 1023)
  await assert.rejects(freePort('192.0.2.1'), { code: 'EADDRNOTAVAIL' })
})

test('nobody else is given the port, in this process or another, while nobody listens there', async () => {
  const port = await freePort()
  const another = await freePort()
  const drawn = [port, port, another]
  const next = await freePort('127.0.0.1', () => drawn.shift() ?? another + 1)
  assert.notEqual(next, port)
  assert.notEqual(next, another)
  const file = new URL('./free-port.ts', import.meta.url).href
  const script = `
    const { freePort } = await import(${JSON.stringify(file)})
    console.log(await freePort('127.0.0.1', () => ${port}))`
  const words = ['--input-type=module', '-e', script]
  const { stdout } = await promisify(execFile)(process.execPath, words)
  assert.match(stdout, /^\d+\n$/)
  assert.notEqual(Number(stdout), port)
})
