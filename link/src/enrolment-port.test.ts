import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { test } from 'node:test'
import type { Enrolment, NodeCard } from '@holdfast/protocol/frames'
import { certificateRequest } from './certificate.ts'
import { enrolmentUrl, fetchCard } from './enrolment-client.ts'
import { type EnrolmentPortOptions, openEnrolmentPort } from './enrolment-port.ts'
import { exchange } from './exchange.ts'
import { linkFault } from './faults.ts'
import { keyId } from './key-id.ts'
import { makeCode, makePair, parseCode } from './sealed-channel.ts'

const p256 = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const pem = (key: KeyObject) =>
  createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()

async function cardOf(identity: KeyObject): Promise<NodeCard> {
  return {
    node: keyId(identity),
    identity: pem(identity),
    exchange: pem(p256()),
    wireguard: '',
    certificateRequest: await certificateRequest(identity),
    ports: { peer: 9998, wireguard: 51820 },
    device: { path: '/dev/sda', bytes: 1_000_000, header: 'none' },
  }
}

const enrolment: Enrolment = {
  cluster: 'c'.repeat(22),
  name: 'web-1',
  certificate: 'certificate',
  authority: 'authority',
  coordinators: ['https://192.0.2.1:8443'],
  coordinatorIdentity: 'i'.repeat(43),
  commandKey: pem(p256()),
  address: '10.88.0.2/16',
  genesis: false,
}

async function node(over: Partial<EnrolmentPortOptions> = {}) {
  const identity = over.identity ?? p256()
  const codes: string[] = []
  const accepted: Enrolment[] = []
  const opened = await openEnrolmentPort({
    host: '127.0.0.1',
    port: 0,
    identity,
    card: await cardOf(identity),
    onCode: (code) => codes.push(code),
    onEnrolment: async (given) => {
      accepted.push(given)
    },
    ...over,
  })
  return {
    address: `127.0.0.1:${opened.port}`,
    id: keyId(identity),
    accepted,
    code: () => parseCode(codes.at(-1) ?? ''),
    codes,
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  }
}

test('the right code gives the card and takes the enrolment', async () => {
  await using here = await node()
  const carded = await fetchCard(here.address, here.code())
  assert.equal(carded.card.node, here.id)
  await carded.push(enrolment)
  assert.deepEqual(here.accepted, [enrolment])
})

test('connections that say nothing keep no coordinator out', async () => {
  await using here = await node()
  const [host, port] = here.address.split(':')
  const silent = Array.from({ length: 200 }, () =>
    connect(Number(port), host).on('error', () => undefined),
  )
  await Promise.all(
    silent.map((each) => Promise.race([once(each, 'connect'), once(each, 'close')])),
  )
  const carded = await fetchCard(here.address, here.code())
  await carded.push(enrolment)
  assert.deepEqual(here.accepted, [enrolment])
  for (const each of silent) each.destroy()
})

test('a lost reply is repeated, and a second enrolment is refused', async () => {
  await using here = await node()
  const carded = await fetchCard(here.address, here.code())
  await Promise.all([carded.push(enrolment), carded.push(enrolment)])
  await carded.push(enrolment)
  assert.equal(here.accepted.length, 1)
  const other = await fetchCard(here.address, here.code())
  await assert.rejects(other.push({ ...enrolment, name: 'other' }), {
    code: 'link.enrolment_refused',
    message: /accepted another/,
  })
  assert.equal(here.accepted.length, 1)
})

test('a wrong code reads nothing', async () => {
  await using here = await node()
  await assert.rejects(fetchCard(here.address, makeCode()), { code: 'link.enrolment_wrong_code' })
  assert.equal(here.codes.length, 1)
})

test('five wrong offers replace the code; the old one is dead and the new one works', async () => {
  const events: boolean[] = []
  await using here = await node({ onWrongOffer: (_remote, replaced) => events.push(replaced) })
  const old = here.code()
  const carded = await fetchCard(here.address, old)

  const stranger = makePair().shown
  const url = enrolmentUrl(here.address)
  const body = JSON.stringify({
    key: stranger,
    offer: 'e30.AAAA.AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA',
  })
  for (let attempt = 0; attempt < 5; attempt += 1)
    assert.equal((await exchange(url, { method: 'POST', body })).status, 403)
  assert.deepEqual(events, [false, false, false, false, true])
  assert.equal(here.codes.length, 2)
  const refused = { code: 'link.enrolment_refused', message: /does not open/ }
  await assert.rejects(carded.push(enrolment), refused)
  await assert.rejects(fetchCard(here.address, old), { code: 'link.enrolment_wrong_code' })
  await (await fetchCard(here.address, here.code())).push(enrolment)
  assert.equal(here.accepted.length, 1)
})

test('a stranger who takes code after code away is not heard any more, and the right one still is', async () => {
  await using here = await node()
  const body = JSON.stringify({
    key: makePair().shown,
    offer: 'e30.AAAA.AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA',
  })
  const post = () =>
    new Promise<number | undefined>((resolve, reject) => {
      const options = { method: 'POST', localAddress: '127.0.0.2', agent: false }
      const sent = request(enrolmentUrl(here.address), options, (reply) => {
        reply.resume()
        resolve(reply.statusCode)
      })
      sent.on('error', reject)
      sent.end(body)
    })
  const statuses: unknown[] = []
  for (let attempt = 0; attempt < 18; attempt += 1) statuses.push(await post())
  assert.deepEqual(statuses, [...Array(15).fill(403), 400, 400, 400])
  assert.equal(here.codes.length, 4, 'three were taken away, the fourth stays')
  await (await fetchCard(here.address, here.code())).push(enrolment)
  assert.equal(here.accepted.length, 1)
})

test("a node's own reason for a refusal arrives, and it may accept later", async () => {
  let full = true
  await using here = await node({
    onEnrolment: async () => {
      if (full) throw linkFault('link.document_invalid', 'the disk has a foreign header')
    },
  })
  const carded = await fetchCard(here.address, here.code())
  await assert.rejects(carded.push(enrolment), {
    code: 'link.enrolment_refused',
    message: /foreign header/,
    details: { code: 'link.document_invalid' },
  })
  full = false
  await carded.push(enrolment)
})

test('a card must be signed by the identity that it names', async () => {
  const [identity, other] = [p256(), p256()]
  await using stolen = await node({ identity, card: await cardOf(other) })
  await assert.rejects(fetchCard(stolen.address, stolen.code()), {
    code: 'link.reply_invalid',
    message: /not signed/,
  })
  const card = { ...(await cardOf(identity)), node: keyId(other) }
  await using renamed = await node({ identity, card })
  await assert.rejects(fetchCard(renamed.address, renamed.code()), {
    code: 'link.reply_invalid',
    message: /not its key/,
  })
})

test('somebody in between who has no code cannot take the place of either end', async () => {
  await using here = await node()
  // The impostor runs its own exchange with each end and passes the sealed card on.
  const impostor = createServer(async (_request, response) => {
    const url = `${enrolmentUrl(here.address)}?key=${makePair().shown}`
    response.end((await exchange(url, { method: 'GET' })).body)
  }).listen(0, '127.0.0.1')
  await once(impostor, 'listening')
  const { port } = impostor.address() as AddressInfo // a listening TCP server has one
  await assert.rejects(fetchCard(`127.0.0.1:${port}`, here.code()), {
    code: 'link.enrolment_wrong_code',
  })
  impostor.close()
})

test('rubbish is answered and changes nothing', async () => {
  await using here = await node()
  const url = enrolmentUrl(here.address)
  const post = async (body: string) => (await exchange(url, { method: 'POST', body })).status
  assert.equal((await exchange(url, { method: 'GET' })).status, 400)
  assert.equal((await exchange(`${url}?key=../../etc`, { method: 'GET' })).status, 400)
  assert.equal((await exchange(url, { method: 'DELETE' })).status, 405)
  assert.equal(await post('{'), 400)
  assert.equal(await post('{"key":"x","offer":1}'), 400)
  assert.equal(await post('x'.repeat(299_000)), 400)
  await (await fetchCard(here.address, here.code())).push(enrolment)
})

test('strangers who ask for cards do not disturb an exchange in progress', async () => {
  await using here = await node()
  const carded = await fetchCard(here.address, here.code())

  for (let count = 0; count < 20; count += 1)
    await exchange(`${enrolmentUrl(here.address)}?key=${makePair().shown}`, { method: 'GET' })
  await carded.push(enrolment)
})

test('addresses are read strictly', () => {
  assert.equal(enrolmentUrl('192.0.2.7'), 'http://192.0.2.7:9999/')
  assert.equal(enrolmentUrl('node.example:80'), 'http://node.example:80/')
  assert.equal(enrolmentUrl('[2001:db8::7]:9000'), 'http://[2001:db8::7]:9000/')
  for (const bad of ['', 'a b', 'user@host', 'host/path', 'host?x', 'host:99999'])
    assert.throws(() => enrolmentUrl(bad), { code: 'link.address_invalid' })
})
