import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fitted, LiveScreen } from './live-screen.ts'
import type { Streams } from './streams.ts'

function terminal(rows: number): { streams: Streams; written: string[] } {
  const written: string[] = []
  const streams: Streams = {
    ...{ outIsTerminal: true, errIsTerminal: true, inIsTerminal: true, columns: 10, rows },
    out: async (text) => void written.push(String(text)),
    err: () => undefined,
  }
  return { streams, written }
}

test('what is drawn again goes back over what was drawn before, and never above the first row', async () => {
  const { streams, written } = terminal(4)
  using screen = new LiveScreen(streams, true)
  await screen.draw('1\n2\n3\n4\n5')
  await screen.draw('6\n7')
  assert.deepEqual(written, ['\u001b[?25l1\n2\n3\n', '\u001b[3A\u001b[0J6\n7\n'])
})

test('nothing is drawn where nobody looks', async () => {
  const { streams, written } = terminal(4)
  using screen = new LiveScreen(streams, false)
  await screen.draw('1')
  assert.deepEqual(written, [])
})

test('a line that is too long is cut, and then has no colours', () => {
  assert.equal(fitted('\u001b[32mgood\u001b[39m', 10), '\u001b[32mgood\u001b[39m')
  assert.equal(fitted('\u001b[32m0123456789abc\u001b[39m', 10), '0123456789')
})
