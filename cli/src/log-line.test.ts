import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { createLog } from '@holdfast/base/log'
import fc from 'fast-check'
import { harmless } from './harmless.ts'
import { LineCutter, logText, parseLogLine } from './log-line.ts'

// Lines of logs for people: of the agent, of pino, of systemd's journal, and of anybody else.

const plain = (_tone: string, text: string) => text
const at = '2026-01-31T12:00:00.123Z'
const shown = (line: string) => logText(line, plain)

const cases: readonly [string, string, string][] = [
  [
    'an incident',
    `${at} holdfast-agent: {"kind":"incident","code":"agent.canary","text":"touched"}`,
    '2026-01-31 12:00:00Z  error  holdfast-agent  incident: agent.canary: touched',
  ],
  [
    'a phase',
    `${at} holdfast-agent[812]: {"kind":"phase","phase":"locked","task":"reshare","step":"prove"}`,
    '2026-01-31 12:00:00Z  info   holdfast-agent[812]  phase: locked reshare prove',
  ],
  [
    'a guardian that is waited for',
    `${at} holdfast-agent: {"kind":"waiting","text":"a1: cannot be reached"}`,
    '2026-01-31 12:00:00Z  warn   holdfast-agent  waiting: a1: cannot be reached',
  ],
  [
    'pino with a number for its level',
    `${at} web[9]: {"level":50,"time":1,"pid":9,"hostname":"h","msg":"no space","disk":"sdb"}`,
    '2026-01-31 12:00:00Z  error  web[9]  no space disk=sdb',
  ],
  [
    'the journal of a program that is not ours',
    `${at} sshd[3]: Accepted key: ED25519`,
    '2026-01-31 12:00:00Z         sshd[3]  Accepted key: ED25519',
  ],
  ['JSON that is not a log', `${at} web: {"a":1}`, '2026-01-31 12:00:00Z         web  {"a":1}'],
  [
    'JSON that was cut off',
    `${at} web: {"kind":"waiting","te`,
    '2026-01-31 12:00:00Z         web  {"kind":"waiting","te',
  ],
  ['a line of no form', 'hello', `-${' '.repeat(28)}hello`],
]
for (const [what, line, text] of cases) {
  test(`log line: ${what}`, () => assert.equal(shown(line), text))
}

test('what pino of this tree writes is read, with its own time and name', () => {
  let written = ''
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      written += String(chunk)
      done()
    },
  })
  createLog('keyserver', 'info', sink).warn({ path: '/adv' }, 'slow')
  const { at: when, ...line } = parseLogLine(written.trimEnd())
  assert.deepEqual(line, { level: 'warn', service: 'keyserver', text: 'slow path=/adv' })
  assert.ok(Math.abs((when ?? 0) - Date.now()) < 60_000)
})

test('every line is a line, and nothing in it reaches the terminal as a command', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
      const message = JSON.stringify({ kind: 'waiting', text })
      const line = shown(`${at} who: ${message}`) + shown(`${at} ${text}: who`)
      assert.ok(line.startsWith('2026-01-31 12:00:00Z'))
      assert.equal(line, harmless(line))
      assert.doesNotMatch(line, /\n/)
    }),
  )
})

test('pieces become the lines that they were cut from', () => {
  fc.assert(
    fc.property(
      fc.array(fc.stringMatching(/^[a-z]{1,9}$/)),
      fc.array(fc.nat(200)),
      (lines, cuts) => {
        const text = lines.map((line) => `${line}\n`).join('')
        const cutter = new LineCutter()
        const places = [0, ...cuts.toSorted((a, b) => a - b), text.length]
        const found = places.flatMap((from, index) =>
          cutter.push(text.slice(from, places[index + 1] ?? text.length)),
        )
        assert.deepEqual([...found, ...cutter.end()], lines)
      },
    ),
  )
})
