import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { type Clock, freePort, systemClock } from '@holdfast/base'
import { type AgentFrame, agentPath, type NodeReport } from '@holdfast/protocol/frames'
import { WebSocket } from 'ws'
import { alwaysValid, certificateRequest, issue, selfSigned } from './certificate.ts'
import { keyId } from './key-id.ts'
import { openListener } from './listener.ts'
import { type AgentSession, connectSession, type SessionOptions } from './session.ts'
import {
  type AcceptOptions,
  acceptSessions,
  type CoordinatorSession,
  type Report,
  SessionRefused,
} from './session-server.ts'
import { type OwnCertificate, pinnedTls, serverTls } from './tls.ts'

const id = (letter: string) => letter.repeat(22)
const p256 = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey

const report: NodeReport = {
  phase: 'open',
  generation: 1,
  epoch: 1,
  threshold: 3,
  guardians: [],
  wards: 0,
  ways: [],
  mapped: false,
  network: 'mutual-tls',
  services: {},
  incidents: [],
  lastErrors: [],
  uptimeSeconds: 1,
}
const welcome = {
  kind: 'welcome',
  cluster: id('c'),
  generation: 1,
  proof: 'AA',
  state: 'running',
  time: 0,
  heartbeatSeconds: 20,
} as const

interface World {
  coordinator: OwnCertificate
  authority: OwnCertificate
  node: OwnCertificate & { id: string }
}

async function world(): Promise<World> {
  const [key, root, own] = [p256(), p256(), p256()]
  const authority = {
    key: root,
    certificate: await selfSigned(root, 'fleet', alwaysValid, { authority: true }),
  }
  const issued = await issue(await certificateRequest(own), authority, alwaysValid, [])
  return {
    coordinator: { key, certificate: await selfSigned(key, 'coordinator', alwaysValid) },
    authority,
    node: { key: own, certificate: issued.certificate, id: issued.node },
  }
}

interface Coordinator extends AsyncDisposable {
  url: string
  port: number
  frames: Report[]
  twins: string[]
  closed: string[]
  opened: () => Promise<CoordinatorSession>
  /** Ends without a word, as a killed process does. */
  crash(): void
}

async function coordinator(
  { coordinator: own, authority }: World,
  over: Partial<AcceptOptions> = {},
  port = 0,
): Promise<Coordinator> {
  const server: Server = createServer(serverTls(own, authority.certificate))
  server.on('tlsClientError', () => undefined)
  const [frames, twins, closed]: [Report[], string[], string[]] = [[], [], []]
  const waiting: ((session: CoordinatorSession) => void)[] = []
  const arrived: CoordinatorSession[] = []
  const acceptor = acceptSessions({
    server,
    clock: systemClock,
    heartbeatSeconds: 20,
    admit: async () => welcome,
    onOpen: (session) => {
      const next = waiting.shift()
      if (next === undefined) arrived.push(session)
      else next(session)
    },
    onFrame: (_session, frame) => {
      frames.push(frame)
    },
    onClose: (_session, { reason }) => closed.push(reason),
    onTwin: (session) => twins.push(session.node),
    ...over,
  })
  const listener = await openListener(server, { port, host: '127.0.0.1' })
  const crash = () => void listener[Symbol.asyncDispose]()
  return {
    url: `https://127.0.0.1:${listener.port}`,
    port: listener.port,
    frames,
    twins,
    closed,
    opened: () =>
      new Promise((resolve) => {
        const session = arrived.shift()
        if (session === undefined) waiting.push(resolve)
        else resolve(session)
      }),
    crash,
    [Symbol.asyncDispose]: async () => {
      await acceptor[Symbol.asyncDispose]()
      crash()
    },
  }
}

function agent(world: World, urls: string[], over: Partial<SessionOptions> = {}): AgentSession {
  return connectSession({
    urls,
    tls: pinnedTls(keyId(world.coordinator.key), { own: world.node }),
    hello: () => ({ kind: 'hello', node: world.node.id, protocol: 1, report }),
    onFrame: () => undefined,
    clock: systemClock,
    random: () => 0,
    signal: new AbortController().signal,
    backoff: { base: 20, most: 200 },
    ...over,
  })
}

const resultFrame = (letter: string): AgentFrame => ({
  kind: 'result',
  command: id(letter),
  ok: true,
})

test('an agent is welcomed, takes instructions and delivers results', async () => {
  const here = await world()
  await using there = await coordinator(here)
  const got: string[] = []
  await using session = agent(here, [there.url], { onFrame: ({ kind }) => void got.push(kind) })
  const accepted = await there.opened()
  assert.equal(accepted.node, here.node.id)
  const command = {
    id: id('a'),
    command: 'status',
    arguments: {},
    by: 'ada',
    issue: 1,
    signature: '',
  } as const
  await accepted.deliver({ kind: 'command', ...command })
  assert.deepEqual(got, ['command'])
  await session.deliver(resultFrame('a'))
  assert.deepEqual(there.frames, [resultFrame('a')])
  assert.equal(session.unacknowledged, 0)
})

test('a session that has been ended waits for what it was told to do', async () => {
  const here = await world()
  await using there = await coordinator(here)
  const [begun, going] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let isDone = false
  const session = agent(here, [there.url], {
    onFrame: async () => {
      begun.resolve()
      await going.promise
      await systemClock.sleep(1)
      isDone = true
    },
  })
  const accepted = await there.opened()
  const document = { kind: 'document', name: 'peers', version: 1, body: '{}' } as const
  await accepted.send({ ...document, signature: '' })
  await begun.promise
  const ending = session[Symbol.asyncDispose]()
  for (let turn = 0; turn < 10_000 && there.closed.length === 0; turn += 1)
    await systemClock.sleep(1)
  going.resolve()
  await ending
  assert.equal(isDone, true)
})

test('results survive the loss of a coordinator and reach another one, in order', async () => {
  const here = await world()
  await using first = await coordinator(here, { onFrame: () => new Promise(() => undefined) })
  await using second = await coordinator(here)
  await using session = agent(here, [first.url, second.url])
  await first.opened()
  const delivered = [...'abcdef'].map((letter) => session.deliver(resultFrame(letter)))
  assert.equal(session.unacknowledged, 6)
  first.crash()
  await Promise.all(delivered)
  assert.deepEqual(second.frames, [...'abcdef'].map(resultFrame))
})

test('a frame that was handled but not acknowledged comes a second time', async () => {
  const here = await world()
  const seen: Report[] = []
  const { promise: handled, resolve } = Promise.withResolvers<void>()
  const onFrame: AcceptOptions['onFrame'] = async (_session, frame) => {
    seen.push(frame)
    resolve()
    await new Promise(() => undefined) // the process dies before it can say that it is done
  }
  await using first = await coordinator(here, { onFrame }, await freePort())
  await using session = agent(here, [first.url])
  await first.opened()
  const delivered = session.deliver(resultFrame('a'))
  await handled
  first.crash()
  await using second = await coordinator(here, {}, first.port)
  await delivered
  assert.deepEqual([seen, second.frames], [[resultFrame('a')], [resultFrame('a')]])
})

test('an agent finds its coordinator again after any number of failures', async () => {
  const here = await world()
  const waits: number[] = []
  let attempts = 0
  const clock: Clock = {
    now: () => Date.now(),
    sleep: async (milliseconds, signal) => {
      if (milliseconds >= 15_000) return await systemClock.sleep(milliseconds, signal)
      waits.push(milliseconds)
      await new Promise(setImmediate)
    },
  }
  const { promise: tired, resolve } = Promise.withResolvers<void>()
  await using session = agent(here, ['https://127.0.0.1:1', 'https://127.0.0.1:2'], {
    clock,
    random: () => 0.999,
    onState: ({ kind }) => {
      if (kind === 'connecting' && ++attempts === 20) resolve()
    },
  })
  await tired
  assert.deepEqual(waits.slice(0, 4), [60, 180, 200, 200])
  assert.equal(session.state.kind === 'open', false)
})

test('a coordinator with another key is never spoken to', async () => {
  const here = await world()
  const other = await world()
  await using there = await coordinator({ ...here, coordinator: other.coordinator })
  const { promise, resolve } = Promise.withResolvers<Error>()
  await using _session = agent(here, [there.url], {
    onState: (state) => state.kind === 'waiting' && resolve(state.cause),
  })
  assert.equal(((await promise) as { code?: string }).code, 'link.identity_mismatch')
  assert.deepEqual(there.frames, [])
})

test('a node of another fleet, a wrong name and a refused node are sent away with a reason', async () => {
  const here = await world()
  const other = await world()
  await using there = await coordinator(here, {
    admit: async () => {
      throw new SessionRefused(4410, 'it has left')
    },
  })
  const causeOf = async (as: World, over: Partial<SessionOptions> = {}) => {
    const { promise, resolve } = Promise.withResolvers<Error>()
    await using _session = agent(as, [there.url], {
      onState: (state) => state.kind === 'waiting' && resolve(state.cause),
      ...over,
    })
    return (await promise).message
  }
  assert.match(await causeOf({ ...here, node: other.node }), /401/)
  assert.match(await causeOf(here), /node_removed, it has left/)
  const hello = () => ({ kind: 'hello', node: other.node.id, protocol: 1, report }) as const
  assert.match(await causeOf(here, { hello }), /identity_mismatch/)
})

test('two live agents with one identity: the second is refused and reported', async () => {
  const here = await world()
  await using there = await coordinator(here)
  await using first = agent(here, [there.url])
  await there.opened()
  const { promise, resolve } = Promise.withResolvers<Error>()
  await using _second = agent(here, [there.url], {
    onState: (state) => state.kind === 'waiting' && resolve(state.cause),
  })
  assert.match((await promise).message, /already_connected/)
  assert.equal(first.state.kind, 'open')
  assert.deepEqual(there.twins[0], here.node.id)
})

test('one node cannot fill the coordinator with connections that never say who they are', async () => {
  const here = await world()
  await using there = await coordinator(here)
  const pin = keyId(here.coordinator.key)
  const silent = () => {
    const url = `${there.url.replace('https', 'wss')}${agentPath}`
    const socket = new WebSocket(url, { agent: pinnedTls(pin, { own: here.node }) })
    return new Promise<WebSocket | string>((resolve) => {
      socket.once('open', () => resolve(socket))
      socket.once('error', ({ message }) => resolve(message))
    })
  }
  const first = await Promise.all([1, 2, 3, 4].map(silent))
  assert.deepEqual(
    first.map((each) => typeof each),
    ['object', 'object', 'object', 'object'],
  )
  assert.match(String(await silent()), /429/)
  for (const socket of first) if (socket instanceof WebSocket) socket.terminate()
  // Once they are gone the agent comes in as ever.
  await using _session = agent(here, [there.url])
  assert.equal((await there.opened()).node, here.node.id)
})

test('an agent whose old connection is dead is let in again', async () => {
  const here = await world()
  const sleep: Clock['sleep'] = (milliseconds, signal) =>
    systemClock.sleep(Math.min(milliseconds, 100), signal)
  await using there = await coordinator(here, { clock: { now: () => 0, sleep } })
  // A proxy that stops passing bytes without closing, as a lost route does.
  let frozen = false
  const pipes: Socket[] = []
  const proxy = createTcpServer((near) => {
    const far = connect(there.port, '127.0.0.1')
    pipes.push(near, far)
    near.on('data', (data) => frozen || far.write(data)).on('error', () => undefined)
    far.on('data', (data) => frozen || near.write(data)).on('error', () => undefined)
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const { port } = proxy.address() as AddressInfo // as above
  await using _lost = agent(here, [`https://127.0.0.1:${port}`])
  const before = await there.opened()
  frozen = true
  const { promise: welcomed, resolve } = Promise.withResolvers<void>()
  await using _again = agent(here, [there.url], {
    onState: ({ kind }) => {
      if (kind === 'open') resolve()
    },
  })
  assert.notEqual(before, await there.opened())
  await welcomed
  for (const pipe of pipes) pipe.destroy()
  proxy.close()
})

/** Time that only passes when told to. */
class ManualClock implements Clock {
  #now = 1_000_000
  readonly #sleepers = new Set<{ at: number; wake: () => void }>()
  get sleepers(): number {
    return this.#sleepers.size
  }
  now(): number {
    return this.#now
  }
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const sleeper = { at: this.#now + milliseconds, wake: resolve }
      this.#sleepers.add(sleeper)
      signal?.addEventListener('abort', () => {
        this.#sleepers.delete(sleeper)
        reject(signal.reason)
      })
    })
  }
  advance(milliseconds: number): void {
    this.#now += milliseconds
    for (const sleeper of [...this.#sleepers])
      if (sleeper.at <= this.#now && this.#sleepers.delete(sleeper)) sleeper.wake()
  }
}

/** Lets time pass, 20 seconds a turn of the event loop, until something has come of it. */
async function passUntil(clock: ManualClock, result: Promise<unknown>): Promise<void> {
  let isOver = false
  void result.finally(() => {
    isOver = true
  })
  for (let turn = 0; turn < 100_000 && !isOver; turn += 1) {
    clock.advance(20_000)
    await new Promise(setImmediate)
  }
}

test('heartbeats keep a session, and silence ends it at both ends', async () => {
  const here = await world()
  const clock = new ManualClock()
  await using there = await coordinator(here, { clock, monotonic: () => clock.now() })
  const quiet = new WebSocket(`wss://127.0.0.1:${there.port}/v1/agent`, {
    agent: pinnedTls(keyId(here.coordinator.key), { own: here.node }),
    autoPong: false,
  })
  await once(quiet, 'open')
  quiet.send(JSON.stringify({ frame: { kind: 'hello', node: here.node.id, protocol: 1, report } }))
  await there.opened()
  const answered = once(quiet, 'message')
  quiet.send(JSON.stringify({ frame: { kind: 'heartbeat', sequence: 1 } }))
  await answered
  const ended = once(quiet, 'close')
  await passUntil(clock, ended)
  assert.equal((await ended)[0], 4408)
})

test('a clock that is set forward or back ends no session', async () => {
  const here = await world()
  const time = new ManualClock()
  let wall = 0
  const clock: Clock = {
    now: () => wall,
    sleep: (milliseconds, signal) => time.sleep(milliseconds, signal),
  }
  const monotonic = () => time.now()
  await using there = await coordinator(here, { clock, monotonic })
  await using session = agent(here, [there.url], { clock, monotonic })
  const accepted = await there.opened()
  const soon = async (check: () => boolean, what: string) => {
    for (let turn = 0; turn < 10_000 && !check(); turn += 1) await systemClock.sleep(1)
    assert.ok(check(), what)
  }
  for (const set of [1_800_000_000_000, 5, 1_800_000_000_000]) {
    // The coordinator waits for its next look at all sessions, and the agent for its next heartbeat.
    await soon(() => session.state.kind === 'open' && time.sleepers === 2, 'both wait')
    wall = set
    time.advance(20_000)
    await soon(() => accepted.heardAt === time.now(), 'a heartbeat came')
  }
  assert.deepEqual([session.state.kind, there.closed], ['open', []])
})

test('an agent gives a silent coordinator up', async () => {
  const here = await world()
  const clock = new ManualClock()
  await using there = await coordinator(here, { onOpen: () => new Promise(() => undefined) })
  const { promise, resolve } = Promise.withResolvers<Error>()
  const { promise: open, resolve: isOpen } = Promise.withResolvers<void>()
  await using _session = agent(here, [there.url], {
    clock,
    monotonic: () => clock.now(),
    onState: (state) => {
      if (state.kind === 'open') isOpen()
      if (state.kind === 'waiting') resolve(state.cause)
    },
  })
  await open
  await passUntil(clock, promise)
  assert.match((await promise).message, /silent/)
  clock.advance(1_000_000)
})

test('rubbish, oversize and frames before the hello end the connection, not the coordinator', async () => {
  const here = await world()
  await using there = await coordinator(here)
  const tls = pinnedTls(keyId(here.coordinator.key), { own: here.node })
  const codeAfter = async (...messages: (string | Buffer)[]) => {
    const socket = new WebSocket(`wss://127.0.0.1:${there.port}/v1/agent`, { agent: tls })
    await once(socket, 'open')
    for (const message of messages) socket.send(message)
    const [code] = await once(socket, 'close')
    return code
  }
  const hello = JSON.stringify({
    frame: { kind: 'hello', node: here.node.id, protocol: 1, report },
  })
  assert.equal(await codeAfter('{'), 4400)
  assert.equal(await codeAfter('null'), 4400)
  assert.equal(await codeAfter(Buffer.from([1, 2, 3])), 4400)
  assert.equal(await codeAfter('{"frame":{"kind":"heartbeat","sequence":1}}'), 4400)
  assert.equal(await codeAfter(hello, hello), 4400)
  assert.equal(await codeAfter(hello, '{"frame":{"kind":"shell","text":"id"}}'), 4400)
  assert.equal(await codeAfter(hello, '{"ack":["x"]}'), 4400)
  assert.equal(await codeAfter('x'.repeat(600 * 1024)), 1009)
  await using session = agent(here, [there.url])
  await session.deliver(resultFrame('z'))
  assert.equal(there.frames.length, 1)
})

test('an outbox that nobody empties refuses more instead of growing', async () => {
  const here = await world()
  await using session = agent(here, ['https://127.0.0.1:1'])
  const text = 'x'.repeat(65_536)
  const big: AgentFrame = { kind: 'output', command: id('a'), text }
  const kept: Promise<unknown>[] = []
  let refused: unknown
  for (let count = 0; count < 300 && refused === undefined; count += 1) {
    const one = session.deliver(big).catch((error: unknown) => {
      if ((error as { code?: string }).code === 'link.outbox_full') refused = error
    })
    kept.push(one)
    await Promise.resolve()
    await Promise.resolve()
    await Promise.resolve()
  }
  assert.notEqual(refused, undefined)
  assert.ok(session.unacknowledged >= 250 && session.unacknowledged < 256)
})
