import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Clock, isFault, run, Secret } from '@holdfast/base'
import {
  createPins,
  type OpenEvent,
  open,
  type Policy,
  parsePolicy,
  seal,
  threshold,
} from '@holdfast/seal'
import { type Misbehaviour, reply, startHostile } from './lib/hostile-server.ts'
import { honest, type Keys, makeKeys, spoilt } from './lib/own-server.ts'

const pins = createPins()
const silent: Misbehaviour = () => undefined

function tang(url: string, keys: Keys): Policy {
  return parsePolicy('tang', { url, thp: keys.thp })
}

async function sealed(policy: Policy): Promise<string> {
  using plaintext = Secret.copy('hi')
  return await seal(pins, policy, plaintext)
}

async function text(work: Promise<Secret>): Promise<string> {
  using plaintext = await work
  return plaintext.reveal().toString()
}

/** A server that advertises, and recovers nothing until it is told to. */
async function server(recovery: Misbehaviour = silent) {
  const keys = makeKeys()
  let current = recovery
  const answer = spoilt(keys, (request, socket) => current(request, socket))
  const running = await startHostile(answer)
  return {
    running,
    policy: tang(running.url, keys),
    recover: () => {
      current = honest(keys)
    },
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

/** A clock whose waits are over at once, and noted. */
function impatientClock(): Clock & { waits: number[] } {
  const waits: number[] = []
  return {
    waits,
    now: () => 0,
    sleep: async (milliseconds, signal) => {
      waits.push(milliseconds)
      await new Promise((resolve) => setImmediate(resolve))
      signal?.throwIfAborted()
    },
  }
}

describe('a threshold race', () => {
  test('a dead first server delays nobody, and its connection is closed at t', async () => {
    await using dead = await server()
    await using one = await server()
    await using two = await server()
    const form = await sealed(threshold(2, [dead.policy, one.policy, two.policy]))
    one.recover()
    two.recover()
    const events: OpenEvent[] = []
    const opened = open(pins, form, { timeout: 600_000, onEvent: (event) => events.push(event) })
    assert.equal(await text(opened), 'hi')
    await dead.running.idle()
    await new Promise((resolve) => setImmediate(resolve))
    const states = events.map(({ path, state }) => `${path.join('.')} ${state}`)
    assert.deepEqual(states.slice(0, 3), ['0 started', '1 started', '2 started'])
    assert.ok(states.includes('0 cancelled'))
    assert.ok(!states.includes('0 failed'))
  })

  test('local pins do not wait for the network', async () => {
    await using dead = await server()
    const form = await sealed(threshold(1, [dead.policy, parsePolicy('null', {})]))
    assert.equal(await text(open(pins, form, { timeout: 600_000, retry: true })), 'hi')
    await dead.running.idle()
  })

  test('each pin has its own deadline', async () => {
    await using dead = await server()
    const form = await sealed(threshold(2, [dead.policy, parsePolicy('null', {})]))
    await assert.rejects(open(pins, form, { timeout: 50 }), (error: unknown) => {
      assert.ok(isFault(error, 'seal.threshold_not_met'))
      assert.match(error.message, /did not answer within 50 ms/)
      return true
    })
    await dead.running.idle()
  })

  test('an abort stops everything at once', async () => {
    await using dead = await server()
    await using other = await server()
    const form = await sealed(threshold(2, [dead.policy, other.policy]))
    for (const retry of [false, true]) {
      const stop = new AbortController()
      const opening = open(pins, form, { timeout: 600_000, retry, signal: stop.signal })
      const count = dead.running.requests.length
      while (dead.running.requests.length === count) await new Promise((r) => setImmediate(r))
      stop.abort(new Error('enough'))
      await assert.rejects(opening, { message: 'enough' })
      await Promise.all([dead.running.idle(), other.running.idle()])
    }
    await assert.rejects(open(pins, form, { signal: AbortSignal.abort(new Error('before')) }), {
      message: 'before',
    })
  })

  test('nobody is kept at a prompt when too few can come any more', async () => {
    let prompted: AbortSignal | undefined
    const asking = createPins({
      passphrase: async (_label, signal) => {
        if (signal === undefined) return Secret.copy('pw') // sealing
        prompted = signal
        return await new Promise<undefined>(() => undefined) // nobody types
      },
    })
    using plaintext = Secret.copy('hi')
    const closed = await server((_request, socket) => {
      socket.write(reply(500, ''))
    })
    await using _closed = closed
    const policy = threshold(2, [
      closed.policy,
      parsePolicy('null', { fail: true }),
      parsePolicy('person', { name: 'alice', key: alice }),
    ])
    const form = await seal(asking, policy, plaintext)
    await assert.rejects(open(asking, form), { code: 'seal.threshold_not_met' })
    const pw = threshold(2, [closed.policy, parsePolicy('passphrase', {})])
    const give = createPins({ passphrase: async () => Secret.copy('pw') })
    const second = await seal(give, pw, plaintext)
    await assert.rejects(open(asking, second), { code: 'seal.threshold_not_met' })
    assert.equal(prompted?.aborted, true)
  })
})

const alice = {
  kty: 'OKP',
  crv: 'X25519',
  x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo',
}

describe('retrying for ever', () => {
  test('opens by itself when the server comes back', async () => {
    await using away = await server((_request, socket) => {
      socket.destroy()
    })
    const form = await sealed(away.policy)
    const clock = impatientClock()
    const faults: string[] = []
    const opened = open(pins, form, {
      retry: true,
      clock,
      onEvent: ({ state, fault }) => {
        if (state !== 'retrying' || fault === undefined) return
        faults.push(fault.code)
        if (faults.length === 5) away.recover()
      },
    })
    assert.equal(await text(opened), 'hi')
    assert.equal(faults.length, 5)
    assert.ok(faults.every((code) => code === 'seal.server_unreachable'))
    assert.equal(clock.waits.length, 5)
    assert.ok(
      clock.waits.every((wait) => wait > 0 && wait <= 30_000),
      clock.waits.join(),
    )
  })

  test('one server of two returns while the other stays dead', async () => {
    await using dead = await server()
    await using away = await server((_request, socket) => {
      socket.write(reply(503, ''))
    })
    const form = await sealed(threshold(1, [dead.policy, away.policy]))
    let failures = 0
    const opened = open(pins, form, {
      retry: true,
      timeout: 600_000,
      clock: impatientClock(),
      onEvent: ({ state }) => {
        if (state === 'retrying') failures += 1
        if (failures === 3) away.recover()
      },
    })
    assert.equal(await text(opened), 'hi')
    await dead.running.idle()
  })

  test('waits as long as Retry-After asks, within a minute, and says so', async () => {
    const asked = ['7', '0', '-3', '99999', 'Wed, 21 Oct 2065 07:28:00 GMT', 'NaN']
    let turn = 0
    const keys = makeKeys()
    await using busy = await startHostile(
      spoilt(keys, (request, socket) => {
        const seconds = asked[turn]
        turn += 1
        if (seconds === undefined) return honest(keys)(request, socket)
        socket.write(reply(503, '', `Retry-After: ${seconds}`))
      }),
    )
    const form = await sealed(tang(busy.url, keys))
    const clock = impatientClock()
    const told: number[] = []
    const opened = open(pins, form, {
      retry: true,
      clock,
      onEvent: ({ wait }) => {
        if (wait !== undefined) told.push(wait)
      },
    })
    assert.equal(await text(opened), 'hi')
    assert.deepEqual(told, clock.waits)
    const [first = 0, , , fourth = 0] = clock.waits
    assert.ok(first >= 7_000 && first <= 30_000, String(first))
    assert.equal(fourth, 60_000)
    assert.ok(clock.waits.every((wait) => Number.isFinite(wait) && wait >= 0))
  })

  test('an abort ends the process, whatever wait a server asked for', async () => {
    await using busy = await server((_request, socket) => {
      socket.write(reply(503, '', 'Retry-After: 60'))
    })
    const script = `
      import { createPins, open } from '@holdfast/seal'
      const stop = new AbortController()
      const onEvent = ({ state, wait }) => {
        if (state !== 'retrying') return
        console.log(wait)
        stop.abort(new Error('enough'))
      }
      const options = { retry: true, signal: stop.signal, onEvent }
      await open(createPins(), process.argv[1], options).catch((error) => {
        console.log(error.message)
      })`
    const form = await sealed(busy.policy)
    const words = ['--input-type=module', '-e', script, form]
    const options = { timeout: 50_000, cwd: import.meta.dirname }
    const { stdout } = await run(process.execPath, words, options)
    assert.equal(stdout.toString(), '60000\nenough\n')
  })
})
