import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Call } from './command-handler.ts'
import { logsHandler } from './commands-services.ts'
import { agentFault } from './faults.ts'
import { type LogSource, OwnLog, plain } from './logs.ts'

const never = new AbortController().signal

function call(output: (text: string) => Promise<void>): Call<'logs'> {
  const given = { lines: 2000 }
  return {
    id: 'i',
    by: 'test',
    given,
    again: false,
    signal: never,
    progress: () => undefined,
    output,
  }
}

const source = (count: number, length: number): LogSource => ({
  read: async () => ({
    lines: Array.from({ length: count }, (_, index) => `${index} `.padEnd(length, 'x')),
    truncated: false,
  }),
})

test('lines go out whole, in frames that fit, one after another', async () => {
  const pieces: string[] = []
  let under = 0
  const data = await logsHandler(source(500, 2000)).run(
    call(async (text) => {
      under += 1
      assert.equal(under, 1, 'a piece was sent before the last one had arrived')
      await new Promise((resolve) => setImmediate(resolve))
      under -= 1
      pieces.push(text)
    }),
  )
  assert.deepEqual(data, { lines: 500, truncated: false })
  assert.ok(pieces.length > 10)
  for (const piece of pieces) assert.ok(piece.length <= 65_536 && piece.endsWith('\n'))
  const lines = pieces.join('').trimEnd().split('\n')
  assert.deepEqual(
    lines.map((line) => Number(line.split(' ')[0])),
    Array.from({ length: 500 }, (_, index) => index),
  )
})

test('when the session goes, no more is sent', async () => {
  let sent = 0
  const away = agentFault('agent.not_connected', 'gone')
  const over = logsHandler(source(500, 2000)).run(
    call(async () => {
      sent += 1
      if (sent === 2) throw away
    }),
  )
  await assert.rejects(over, { code: 'agent.not_connected' })
  assert.equal(sent, 2)
})

test("the agent's own log is bounded, and asked by lines and minutes", async () => {
  let now = 0
  const log = new OwnLog(() => now, 10)
  for (let index = 0; index < 25; index += 1) {
    now = index * 60_000
    log.add(`line ${index}`)
  }
  const all = await log.read({ lines: 2000 })
  assert.equal(all.lines.length, 10)
  assert.match(all.lines[0] ?? '', /^1970-01-01T00:15:00.000Z holdfast-agent: line 15$/)
  const last = await log.read({ lines: 3 })
  assert.deepEqual([last.lines.length, last.truncated], [3, true])
  assert.equal((await log.read({ lines: 100, sinceMinutes: 4 })).lines.length, 5)
  await assert.rejects(log.read({ lines: 1, service: 'web' }), { code: 'agent.journal_absent' })
})

test('a log line cannot drive a terminal', () => {
  assert.equal(plain('a\u001b[31mb\r\nc\u202ed\u0007'), 'a [31mb  c d ')
  assert.equal(plain('x'.repeat(5000)).length, 2000)
})
