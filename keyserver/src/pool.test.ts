import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { adminClient } from './admin-client.ts'
import { readDirectory } from './directory.ts'
import { initialise } from './rotate.ts'
import {
  blindedPoint,
  bodyOf,
  exchange,
  post,
  type Served,
  scratch,
  startProcess,
  statusOf,
  until,
} from './server-fixture.ts'

// Real processes: a primary and two workers on one port.

async function startPool(workers = 2, args: readonly string[] = []) {
  await using stack = new AsyncDisposableStack()
  const directory = stack.use(await scratch()).path
  const keys = join(directory, 'keys')
  const all = ['--directory', keys, '--init', 'P-521', '--workers', String(workers), ...args]
  const server = stack.use(await startProcess([...all, '--rate', '0', '--log', 'warn']))
  const kid = (await readDirectory(keys)).keys.find((key) => key.use === 'exchange')?.kid ?? ''
  const owned = stack.move()
  return {
    server,
    directory,
    keys,
    kid,
    administration: adminClient(server.adminSocket),
    recover: async () =>
      statusOf(await exchange(server.port, post(`/rec/${kid}`, blindedPoint('P-521')))),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

async function childrenOf({ pid }: Served): Promise<number[]> {
  const tasks = await readdir(`/proc/${pid}/task`)
  const lists = tasks.map((task) => readFile(`/proc/${pid}/task/${task}/children`, 'utf8'))
  return (await Promise.all(lists))
    .join(' ')
    .split(' ')
    .map(Number)
    .filter((child) => child > 0)
}

/** Statuses of `count` recoveries, each on a connection of its own, all at once. */
function burst(port: number, kid: string, count: number): Promise<number[]> {
  const request = post(`/rec/${kid}`, blindedPoint('P-521'))
  return Promise.all(
    Array.from({ length: count }, async () => statusOf(await exchange(port, request))),
  )
}

test('a storm of 200 connections in 100 ms loses none', async () => {
  await using pool = await startPool()
  const request = post(`/rec/${pool.kid}`, blindedPoint('P-521'))
  const answers: Promise<string>[] = []
  for (let wave = 0; wave < 10; wave += 1) {
    for (let index = 0; index < 20; index += 1) answers.push(exchange(pool.server.port, request))
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  const replies = await Promise.all(answers)
  assert.deepEqual([...new Set(replies.map(statusOf))], [200])
  assert.equal(new Set(replies).size, 1, 'one question has one answer')
})

test('a killed worker loses only what it was answering, and is replaced', async () => {
  await using pool = await startPool()
  const workers = await childrenOf(pool.server)
  assert.equal(workers.length, 2)
  const [victim] = workers
  const clients = 8
  let lost = 0
  let answered = 0
  let killed = false
  const client = async () => {
    for (let index = 0; index < 100; index += 1) {
      const status = await pool.recover()
      if (status === 200) answered += 1
      else lost += 1
      if (!killed && answered > 150) {
        killed = true
        process.kill(victim ?? 0, 'SIGKILL')
      }
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  assert.ok(killed)
  assert.ok(lost <= clients, `${lost} of ${clients} clients could be talking to it, no more`)
  assert.equal(answered + lost, clients * 100)
  await until('both workers run again', async () => {
    const { workers: count, restarts } = await pool.administration.status()
    return count === 2 && restarts === 1
  })
  assert.ok(!(await childrenOf(pool.server)).includes(victim ?? 0))
  assert.deepEqual(new Set(await burst(pool.server.port, pool.kid, 20)), new Set([200]))
})

test('when all workers are killed at once, the server comes back on the same port', async () => {
  await using pool = await startPool()
  for (const pid of await childrenOf(pool.server)) process.kill(pid, 'SIGKILL')
  await until('it answers', () =>
    pool.recover().then(
      (status) => status === 200,
      () => false,
    ),
  )
})

test('what the workers do is counted and remembered in one place', async () => {
  await using pool = await startPool()
  const count = 60
  assert.deepEqual(new Set(await burst(pool.server.port, pool.kid, count)), new Set([200]))
  assert.equal(
    statusOf(await exchange(pool.server.port, post('/rec/none', blindedPoint('P-521')))),
    404,
  )
  const { keys } = await pool.administration.list()
  assert.equal(keys.find((key) => key.kid === pool.kid)?.uses, count)
  const metrics = bodyOf(await exchange(pool.server.port, 'GET /metrics HTTP/1.1\r\n\r\n'))
  const label = `kid="${pool.kid.slice(0, 8)}",prefix="",curve="P-521",status="200"`
  assert.ok(metrics.includes(`holdfast_keyserver_recoveries_total{${label}} ${count}\n`), metrics)
  assert.ok(metrics.includes('{kid="unknown",prefix="",curve="",status="404"} 1\n'))
  assert.ok(metrics.includes(`holdfast_keyserver_recovery_seconds_count{curve="P-521"} ${count}\n`))
  assert.ok(metrics.includes('holdfast_keyserver_workers 2\n'))
})

test('both workers take part', async () => {
  await using pool = await startPool()
  const workers = await childrenOf(pool.server)
  const ticks = () =>
    Promise.all(
      workers.map(async (pid) => {
        const text = await readFile(`/proc/${pid}/stat`, 'utf8')
        return Number(text.slice(text.lastIndexOf(')')).split(' ')[12])
      }),
    )
  const before = await ticks()
  let spent: number[] = []
  // Five rounds are some twenty ticks: on a busy machine that may be too few to tell by.
  for (let round = 0; round < 5 || smallestShare(spent) <= 0.1; round += 1) {
    assert.ok(round < 100, `user time of the workers, in ticks: ${spent}`)
    await burst(pool.server.port, pool.kid, 100)
    spent = (await ticks()).map((after, index) => after - (before[index] ?? 0))
  }
  assert.equal(spent.length, 2)
})

/** What part of the whole the smallest is; 0 while there is nothing. */
function smallestShare(spent: readonly number[]): number {
  const all = spent.reduce((sum, one) => sum + one, 0)
  return all === 0 ? 0 : Math.min(...spent) / all
}

test('an administration call returns when every worker answers from the new state', async () => {
  await using pool = await startPool()
  const { created } = await pool.administration.addPrefix('site-9')
  const request = post(`/p/site-9/rec/${created[0]?.kid}`, blindedPoint('P-521'))
  const all = () =>
    Promise.all(
      Array.from({ length: 30 }, async () => statusOf(await exchange(pool.server.port, request))),
    )
  assert.deepEqual(new Set(await all()), new Set([200]))
  await pool.administration.revokePrefix('site-9')
  assert.deepEqual(new Set(await all()), new Set([404]))
  await pool.administration.hold('drill')
  assert.deepEqual(new Set(await burst(pool.server.port, pool.kid, 20)), new Set([503]))
  await pool.administration.release()
  assert.deepEqual(new Set(await burst(pool.server.port, pool.kid, 20)), new Set([200]))
})

test('a worker that hangs keeps no hold from being made, and is replaced', async () => {
  await using pool = await startPool()
  const [hung] = await childrenOf(pool.server)
  assert.ok(hung !== undefined)
  process.kill(hung, 'SIGSTOP')
  const { administration } = pool
  // Whichever was asked first says that it waited in vain; then the successor reads for the other.
  const ends = await Promise.allSettled([
    administration.hold('a key may have been copied'),
    administration.list(),
  ])
  const faults = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason.code] : []))
  assert.deepEqual(new Set(faults), new Set(['keyserver.worker_failed']))
  await until('its end', async () => !(await childrenOf(pool.server)).includes(hung))
  await until('a successor', async () => (await administration.status()).workers === 2)
  await administration.list()
  assert.equal(await pool.recover(), 503)
})

test('a refusal of the workers is the refusal of the server', async () => {
  await using directory = await scratch()
  const start = (args: string[]) => startProcess(['--workers', '2', '--log', 'error', ...args])
  await assert.rejects(start(['--directory', directory.path]), /keyserver\.directory_empty/)
  await initialise(directory.path, { curve: 'P-256' })
  await using first = await start(['--directory', directory.path])
  await assert.rejects(
    start(['--directory', directory.path, '--port', String(first.port)]),
    /keyserver\.listen_failed/,
  )
  assert.equal(statusOf(await exchange(first.port, 'GET /adv HTTP/1.1\r\n\r\n')), 200)
})

test('workers end with their primary, however it ends', async () => {
  await using pool = await startPool()
  const workers = await childrenOf(pool.server)
  process.kill(pool.server.pid, 'SIGKILL')
  await until('the workers are gone', async () => {
    const alive = await Promise.all(
      workers.map((pid) =>
        readFile(`/proc/${pid}/stat`, 'utf8').then(
          (text) => !/\) Z /.test(text),
          () => false,
        ),
      ),
    )
    return !alive.includes(true)
  })
})
