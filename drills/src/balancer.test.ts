import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { describe, it } from 'node:test'
import { freePort } from '@holdfast/base'
import { startBalancer } from './balancer.ts'

async function member(name: string): Promise<{ server: Server; port: number }> {
  const server = createServer((_request, response) => response.end(name))
  const port = await freePort() // nobody else takes it when it is closed
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return { server, port }
}

async function ask(url: string): Promise<string> {
  const reply = await fetch(url, { headers: { connection: 'close' } })
  return await reply.text()
}

async function close(server: Server): Promise<void> {
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
}

describe('the load balancer of the shared-set drills', () => {
  it('takes turns, passes over a member that does not accept, and refuses when none does', async () => {
    const [a, b] = [await member('a'), await member('b')]
    await using balancer = await startBalancer([a.port, b.port])
    const second = balancer.handed(a.port, 2)
    const turns = [await ask(balancer.url), await ask(balancer.url), await ask(balancer.url)]
    assert.deepEqual(turns, ['a', 'b', 'a'])
    await second
    await close(b.server)
    assert.deepEqual([await ask(balancer.url), await ask(balancer.url)], ['a', 'a'])
    assert.deepEqual(balancer.served, { [a.port]: 4, [b.port]: 1 })
    await close(a.server)
    await assert.rejects(ask(balancer.url))
  })

  it('closes what is open when it is disposed', async () => {
    const silent = createServer(() => undefined)
    const port = await freePort()
    silent.listen(port, '127.0.0.1')
    await once(silent, 'listening')
    const balancer = await startBalancer([port])
    const hanging = assert.rejects(ask(balancer.url))
    await once(silent, 'request')
    assert.equal(balancer.inFlight(port), 1)
    await balancer[Symbol.asyncDispose]()
    await hanging
    await close(silent)
  })
})
