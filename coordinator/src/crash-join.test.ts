import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseJsonObject, run, startProgram, systemClock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { verifyAudit } from './audit.ts'
import { Coordinator } from './coordinator.ts'
import { claimed, place } from './coordinator-fixture.ts'
import { filePin } from './file-pin.ts'
import { prepareJoin } from './join.ts'
import { type Postgres, startPostgres } from './local-postgresql.ts'

// A join over a real PostgreSQL, with either side killed after every durable effect. Whatever happened,
// the one who joins is told what to do, a new token is all that it takes, and nothing in between is
// taken for an instance that it is not.

const program = fileURLToPath(new URL('crash-join-fixture.ts', import.meta.url))
const mostEffects = 20

type Place = Awaited<ReturnType<typeof place>>

/** The place of a claimed instance, and what the two sides are told. */
async function cluster(server: Postgres) {
  const first = await place({ engine: 'postgresql', url: server.url })
  const coordinator = await claimed(first.options)
  const { header, identity } = coordinator
  await coordinator[Symbol.asyncDispose]()
  const [store, tokenFile] = [join(first.directory, 'addresses'), join(first.directory, 'token')]
  await writeFile(store, server.url, { mode: 0o600 })
  return {
    first,
    cluster: header?.cluster ?? '',
    pinned: identity.digest,
    tokenFile,
    /** Somebody at the machine, whether the instance runs or not. */
    newToken: async () => {
      const { token } = await prepareJoin(first.directory, systemClock)
      await writeFile(tokenFile, token, { mode: 0o600 })
    },
    /** The giving instance, killed at this effect of a join. */
    serve: async (killAt: number) => {
      const { running, line } = await startProgram(
        process.execPath,
        [program, 'give', first.directory, store, `${killAt}`],
        (text) => text.includes('"ready"'),
        { readyWithin: 60_000 },
      )
      const { port, state } = parseJsonObject(line, 'the first line')
      assert.equal(state, 'ready')
      const url = `https://127.0.0.1:${port}`
      return { running, url, [Symbol.asyncDispose]: () => running[Symbol.asyncDispose]() }
    },
    [Symbol.asyncDispose]: () => first[Symbol.asyncDispose](),
  }
}

type Cluster = Awaited<ReturnType<typeof cluster>>

/** What the one who joins is told; undefined when its process was killed. */
async function joining(here: Cluster, directory: string, url: string, killAt = 0) {
  const words = ['take', directory, url, here.pinned, here.tokenFile, `${killAt}`]
  const { code, stdout } = await run(process.execPath, [program, ...words], { accept: [0, 137] })
  return code === 137 ? undefined : parseJsonObject(stdout.toString('utf8'), 'what it says')
}

/** The token was used up: the hint says how to make another one. */
function requireRefused(said: Record<string, unknown> | undefined): void {
  assert.equal(said?.code, 'coordinator.join_refused', JSON.stringify(said))
  assert.match(`${said.message}`, /was used/)
  assert.match(`${said.hint}`, /holdfast coordinator join-token/)
}

function serving(here: Cluster, { directory }: Place): Promise<Coordinator> {
  const pins = createPins({ extra: [filePin(directory)] })
  return Coordinator.start({ directory, store: here.first.options.store, pins })
}

/** It is an instance: the same files, and it opens the state by itself. */
async function requireJoined(here: Cluster, joined: Place): Promise<void> {
  for (const name of ['identity.pem', 'host.key', 'initialised']) {
    const [given, got] = await Promise.all(
      [here.first, joined].map(({ directory }) => readFile(join(directory, name))),
    )
    assert.deepEqual(got, given, name)
  }
  await using coordinator = await serving(here, joined)
  assert.deepEqual([coordinator.state, coordinator.identity.digest], ['ready', here.pinned])
  assert.equal((await verifyAudit(coordinator.store.read)).intact, true)
}

test('a new instance that is killed anywhere in its join is told what to do, and joins', async () => {
  await using server = await startPostgres()
  await using here = await cluster(server)
  await using instance = await here.serve(0)
  const { url } = instance
  let killAt = 1
  for (; killAt <= mostEffects; killAt += 1) {
    await using joined = await place()
    const { directory } = joined
    await here.newToken()
    const said = await joining(here, directory, url, killAt)
    if (said !== undefined) {
      assert.deepEqual(said, { cluster: here.cluster })
      await requireJoined(here, joined)
      break
    }
    const names = (await readdir(directory)).sort()
    requireRefused(await joining(here, directory, url))
    assert.deepEqual((await readdir(directory)).sort(), names)
    if (names.includes('identity.pem')) await requireJoined(here, joined)
    else
      await assert.rejects(serving(here, joined), {
        code: 'coordinator.identity_absent',
        hint: /holdfast coordinator join/,
      })
    await here.newToken()
    assert.deepEqual(await joining(here, directory, url), { cluster: here.cluster })
    await requireJoined(here, joined)
  }
  assert.equal(killAt - 1, 4, 'a marker, a witness, a host key, an identity')
})

test('an instance that is killed anywhere while another joins costs a token and nothing else', async (t) => {
  await using server = await startPostgres()
  await using here = await cluster(server)
  let killAt = 1
  for (; killAt <= mostEffects; killAt += 1) {
    await using joined = await place()
    const { directory } = joined
    await here.newToken()
    {
      await using instance = await here.serve(killAt)
      const said = await joining(here, directory, instance.url)
      if (said?.cluster !== undefined) {
        await requireJoined(here, joined)
        break
      }
      assert.equal(said?.code, 'link.unreachable', JSON.stringify(said))
      assert.equal(await instance.running.ended, 137)
    }
    assert.deepEqual(await readdir(directory), [], 'nothing was begun')
    await using again = await here.serve(0)
    requireRefused(await joining(here, directory, again.url))
    await here.newToken()
    assert.deepEqual(await joining(here, directory, again.url), { cluster: here.cluster })
    await requireJoined(here, joined)
  }
  t.diagnostic(`${killAt - 1} kills`)
  assert.ok(killAt > 3 && killAt <= mostEffects, `${killAt} effects`)
})
