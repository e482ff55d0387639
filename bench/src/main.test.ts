import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isObject, type JsonObject, parseJsonObject, run } from '@holdfast/base'

const program = fileURLToPath(new URL('main.ts', import.meta.url))

async function bench(...args: string[]): Promise<{ code: number; text: string; stderr: string }> {
  const result = await run(process.execPath, [program, ...args], {
    accept: [0, 1],
    timeout: 280_000,
  })
  return { code: result.code, text: result.stdout.toString('utf8'), stderr: result.stderr }
}

function object(value: unknown): JsonObject {
  assert.ok(isObject(value))
  return value
}

test('a very short run against real tangd prints the promised document', async () => {
  const name = 'keyserver/p256/new-connection'
  const { text } = await bench(name, '--json', '--rounds', '1', '--seconds', '0.3')
  const { machine, results } = parseJsonObject(text, 'the printed document')
  for (const member of ['cpu', 'cores', 'kernel', 'node', 'openssl', 'tang', 'clevis']) {
    assert.ok(object(machine)[member], member)
  }
  assert.ok(Array.isArray(results) && results.length === 1)
  const result = object(results[0])
  assert.equal(result.name, name)
  const peers = object(result.peers)
  assert.deepEqual(Object.keys(peers), ['tangd-exec', 'tangd-fork'])
  for (const figures of [result.ours, peers['tangd-exec']].map(object)) {
    const { requestsPerSecond, cpuMicrosPerRequest, p50, p99, failures } = figures
    for (const figure of [requestsPerSecond, cpuMicrosPerRequest, p50, p99]) {
      assert.ok(typeof figure === 'number' && figure > 0)
    }
    assert.equal(failures, 0)
  }
  const ratios = object(object(result.ratios)['tangd-exec'])
  assert.deepEqual(Object.keys(ratios), ['requestsPerSecond', 'cpu', 'p99', 'pairwise'])
  if (peers['tangd-fork'] === null) assert.match(JSON.stringify(result.notes), /no fork mode/)
})

test('a name that selects nothing is refused', async () => {
  const { code, stderr } = await bench('no-such-bench', '--json')
  assert.equal(code, 1)
  assert.match(stderr, /no bench is named no-such-bench/)
})
