import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Fault, freePort, isFault, Secret } from '@holdfast/base'
import { curveOf, generateEcKey, jwkOf, negate, pointOf } from '@holdfast/crypto'
import {
  createFetch,
  createPins,
  knownKeys,
  open,
  parsePolicy,
  policyOf,
  rehearse,
  reseal,
  seal,
} from '@holdfast/seal'
import { type Misbehaviour, reply, startHostile } from './lib/hostile-server.ts'
import { honest, lying, makeKeys, spoilt, startHonest } from './lib/own-server.ts'

const plaintextText = 'the plaintext'
const silent: Misbehaviour = () => undefined
const pins = createPins()
const keys = makeKeys()
const tang = (url: string, thp = keys.thp) => parsePolicy('tang', { url, thp })

async function sealTo(url: string, using_ = pins): Promise<string> {
  using plaintext = Secret.copy(plaintextText)
  return await seal(using_, tang(url), plaintext)
}

/** Rejects with one of the codes, and says nothing of the plaintext. */
async function refused(work: Promise<unknown>, ...codes: string[]): Promise<Fault> {
  const error = await work.then(
    () => assert.fail('it was accepted'),
    (reason: unknown) => reason,
  )
  assert.ok(isFault(error), String(error))
  assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`)
  assert.equal(JSON.stringify(error).includes(plaintextText), false)
  return error
}

describe('an advertisement that must not be believed', () => {
  const stranger = makeKeys()
  const unattended = (url: string) => sealTo(url)
  const confirmed: string[][] = []
  const trusting = createPins({
    confirm: async (_url, seen) => {
      confirmed.push([...seen])
      return true
    },
  })

  test('another server behind the address, with and without somebody who confirms anything', async () => {
    await using server = await startHonest(stranger)
    await refused(unattended(server.url), 'seal.trust_refused')
    await refused(sealTo(server.url, trusting), 'seal.trust_refused')
    assert.deepEqual(confirmed, [], 'a pinned key is never a question')
    using plaintext = Secret.copy(plaintextText)
    const unpinned = parsePolicy('tang', { url: server.url })
    await refused(seal(pins, unpinned, plaintext), 'seal.trust_required')
    const denying = createPins({ confirm: async () => false })
    await refused(seal(denying, unpinned, plaintext), 'seal.trust_refused')
    assert.ok(await seal(trusting, unpinned, plaintext))
    assert.deepEqual(confirmed, [[stranger.thp]])
  })

  test('unsigned, signed by a stranger, signed in part, or with the payload exchanged', async () => {
    const good: Record<string, string> = JSON.parse(await keys.advertisement())
    const theirs: Record<string, string> = JSON.parse(await stranger.advertisement())
    const { payload, ...signature } = good
    const texts = [
      JSON.stringify({ payload }),
      JSON.stringify({ payload, signatures: [] }),
      JSON.stringify({ ...good, signature: '' }),
      await keys.advertisement([stranger.signing]),
      JSON.stringify({ ...good, payload: theirs.payload }),
      JSON.stringify({ ...theirs, payload: good.payload }),
      JSON.stringify({ payload: theirs.payload, signatures: [signature] }),
      '',
      'not found',
      '[]',
      'null',
      `{"payload":${'['.repeat(20_000)}`,
    ]
    for (const text of texts) {
      await using server = await startHostile((_request, socket) => {
        socket.write(reply(200, text))
      })
      const codes = ['crypto.advertisement_unsigned', 'crypto.advertisement_malformed']
      await refused(unattended(server.url), ...codes)
      await refused(sealTo(server.url, trusting), ...codes)
    }
  })

  test('a replayed old advertisement after the trust has moved on', async () => {
    const fresh = makeKeys()
    const [old, next] = [await keys.advertisement(), await fresh.advertisement()]
    const rotated = await fresh.advertisement([fresh.signing, keys.signing])
    let served = old
    await using server = await startHostile(async ({ method, body }, socket) => {
      const right = served === old ? keys : fresh
      const text = method === 'GET' ? served : JSON.stringify(jwkOf(right.answer(body), 'P-256'))
      socket.write(reply(200, text))
    })
    const first = await sealTo(server.url)
    served = next
    await refused(reseal(pins, first, tang(server.url)), 'crypto.jwe_wrong_key')
    served = rotated
    using plaintext = Secret.copy(plaintextText)
    const second = await seal(pins, tang(server.url), plaintext, { known: knownKeys(first) })
    using again = await open(pins, second)
    assert.equal(again.reveal().toString(), plaintextText)
    served = old
    const later = knownKeys(second)
    const replayed = parsePolicy('tang', { url: server.url })
    await refused(seal(pins, replayed, plaintext, { known: later }), 'seal.trust_required')
    await refused(
      seal(pins, policyOf(pins, second), plaintext, { known: later }),
      'seal.trust_refused',
    )
  })

  test('redirects are not followed, for advertisements and recoveries alike', async () => {
    await using target = await startHonest(keys)
    const redirect: Misbehaviour = ({ path }, socket) => {
      socket.write(reply(302, '', `Location: ${target.url}${path}`))
    }
    await using server = await startHostile(redirect)
    await refused(unattended(server.url), 'seal.server_refused')
    await using other = await startHostile(spoilt(keys, redirect))
    await refused(open(pins, await sealTo(other.url)), 'seal.server_refused')
    assert.deepEqual(target.requests, [])
  })
})

describe('a recovery that must not be believed', () => {
  const curve = curveOf('P-256')
  const lies = {
    'the right x with the wrong y': lying(keys, (right) => jwkOf(negate(right, curve), 'P-256')),
    'a point off the curve': lying(keys, ({ x }) => jwkOf({ x, y: x }, 'P-256')),
    'the point at infinity': lying(keys, () => jwkOf({ x: 0n, y: 0n }, 'P-256')),
    'a point of another curve': lying(keys, () => jwkOf(pointOf(generateEcKey('P-384')), 'P-384')),
    'another curve of that name': lying(keys, (right) => ({
      ...jwkOf(right, 'P-256'),
      crv: 'constructor',
    })),
    'a random point': lying(keys, () => jwkOf(pointOf(generateEcKey('P-256')), 'P-256')),
    "the server's own key": lying(keys, () => jwkOf(pointOf(keys.exchange), 'P-256')),
    'coordinates with padding': lying(keys, (right) => {
      const jwk = jwkOf(right, 'P-256')
      return { ...jwk, x: `${jwk.x}=` }
    }),
    'coordinates that are numbers': lying(keys, () => ({ kty: 'EC', crv: 'P-256', x: 1, y: 2 })),
    'an RSA key': lying(keys, () => ({ kty: 'RSA', n: 'AQAB', e: 'AQAB' })),
    'a list': lying(keys, () => []),
    'the question itself': spoilt(keys, ({ body }, socket) => {
      socket.write(reply(200, body))
    }),
    nothing: spoilt(keys, (_request, socket) => {
      socket.write(reply(200, ''))
    }),
    'a page of a captive portal': spoilt(keys, (_request, socket) => {
      socket.write(reply(200, '<html><body>Welcome</body></html>', 'Content-Type: text/html'))
    }),
    'deep nesting': spoilt(keys, (_request, socket) => {
      socket.write(reply(200, `${'['.repeat(30_000)}${']'.repeat(30_000)}`))
    }),
  }
  for (const [name, answer] of Object.entries(lies)) {
    test(name, async () => {
      await using server = await startHostile(answer)
      const sealed = await sealTo(server.url)
      const codes = ['seal.server_reply_invalid', 'crypto.jwe_wrong_key', 'crypto.point_invalid']
      await refused(open(pins, sealed), ...codes)
      const rehearsal = await rehearse(pins, sealed)
      assert.equal(rehearsal.state, 'failed')
    })
  }

  test('statuses are failures that name the status; Retry-After is passed on', async () => {
    for (const status of [204, 301, 400, 403, 404, 429, 500, 503]) {
      await using server = await startHostile(
        spoilt(keys, (_request, socket) => {
          socket.write(reply(status, '', 'Retry-After: 7'))
        }),
      )
      const error = await refused(
        open(pins, await sealTo(server.url)),
        'seal.server_refused',
        ...(status === 204 ? ['seal.server_reply_invalid'] : []),
      )
      if (status === 503) assert.deepEqual(error.details, { retryAfter: 7 })
    }
  })
})

describe('a server that is broken on the wire', () => {
  const impatient = createPins({ fetch: createFetch({ connect: 300, total: 300 }) })
  const drip = (socket: Parameters<Misbehaviour>[1], bytes: string) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n')
    const timer = setInterval(() => socket.write(bytes), 10)
    socket.on('close', () => clearInterval(timer))
  }
  const broken: Record<string, Misbehaviour> = {
    'never answers': () => undefined,
    'hangs up': (_request, socket) => {
      socket.destroy()
    },
    'resets the connection': (_request, socket) => {
      socket.resetAndDestroy()
    },
    'drips one byte at a time': (_request, socket) => drip(socket, ' '),
    'drips its header': (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\n')
      const timer = setInterval(() => socket.write('X: y\r\n'), 10)
      socket.on('close', () => clearInterval(timer))
    },
    'promises more than it sends': (_request, socket) => {
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}')
    },
    'sends a body without end': (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      const chunk = `2000\r\n${'x'.repeat(0x2000)}\r\n`
      const pour = () => {
        while (socket.writable && socket.write(chunk));
      }
      socket.on('drain', pour)
      pour()
    },
    'sends headers without end': (_request, socket) => {
      const line = `X-Header: ${'x'.repeat(8000)}\r\n`
      socket.write('HTTP/1.1 200 OK\r\n')
      const pour = () => {
        while (socket.writable && socket.write(line));
      }
      socket.on('drain', pour)
      pour()
    },
    'does not speak HTTP': (_request, socket) => {
      socket.end('SSH-2.0-OpenSSH_9.2p1\r\n\r\n')
    },
    'sends random bytes': (_request, socket) => {
      socket.end(Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 167) & 0xff)))
    },
  }
  for (const [name, answer] of Object.entries(broken)) {
    test(`it ${name}: a fault in bounded time, and the connection is closed`, async () => {
      await using server = await startHostile(spoilt(keys, answer))
      const sealed = await sealTo(server.url) // it advertises as it should
      const codes = ['seal.server_unreachable', 'seal.server_reply_invalid']
      await refused(open(impatient, sealed), ...codes)
      await server.idle()
      await using deaf = await startHostile(answer)
      await refused(sealTo(deaf.url, impatient), ...codes)
      await deaf.idle()
    })
  }

  test('a body over the bound ends at the bound, however long there would be time', async () => {
    await using server = await startHostile(
      spoilt(keys, broken['sends a body without end'] ?? silent),
    )
    const patient = createPins({ fetch: createFetch({ total: 600_000 }) })
    const sealed = await sealTo(server.url)
    const error = await refused(
      open(patient, sealed, { timeout: 600_000 }),
      'seal.server_reply_invalid',
    )
    assert.match(error.message, /sent more than 65536 bytes/)
    await server.idle()
  })

  test('nobody listens', async () => {
    const server = await startHostile(honest(keys), await freePort()) // which stays nobody else's
    const sealed = await sealTo(server.url)
    await server[Symbol.asyncDispose]()
    const error = await refused(open(pins, sealed), 'seal.server_unreachable')
    assert.match(error.message, /ECONNREFUSED/)
    assert.equal(error.hint?.includes(server.url), true)
  })

  test('addresses that are not http or https are never asked', async () => {
    for (const url of ['file:///etc/passwd', 'ftp://x/', 'http://user:pw@x/', 'x', '']) {
      await refused(sealTo(url), 'seal.policy_invalid')
    }
  })
})

test('honest servers are the control of all the above', async () => {
  await using server = await startHostile(honest(keys))
  using plaintext = await open(pins, await sealTo(server.url))
  assert.equal(plaintext.reveal().toString(), plaintextText)
})
