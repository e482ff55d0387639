import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Machine } from './machine.ts'
import { asMarkdown, asTable } from './report.ts'
import { commandComparisons, compare, serverComparisons } from './result.ts'

const machine: Machine = {
  cpu: 'a processor',
  cores: 2,
  memoryGiB: 4,
  kernel: '6.1',
  node: '24',
  openssl: '3.5',
  opensslDebian: '3.0',
  tang: '11',
  clevis: '19',
  jose: '11',
  cryptsetup: '2.6',
  socat: '1.7',
  loadBefore: 0,
}

const server = (requestsPerSecond: number, cpuMicrosPerRequest: number) => [
  { requestsPerSecond, cpuMicrosPerRequest, p99: 10, clientCpuMicrosPerRequest: 100 },
]
const slowServer = compare(
  'keyserver/p521/new-connection',
  server(900, 500),
  { 'tangd-exec': server(100, 4500), 'tangd-fork': null },
  serverComparisons,
  ['tangd here has no fork mode'],
)
const slowCommand = compare(
  'open/tang1',
  [{ wallMs: 100, cpuMs: 90 }],
  { 'clevis-decrypt': [{ wallMs: 110, cpuMs: 100 }] },
  commandComparisons,
)

test('a missed target is named with its reason', () => {
  const text = asMarkdown(machine, [slowServer, slowCommand])
  assert.match(text, /tangd executed per connection \| at least 10 times better \| 9 \| not met \|/)
  assert.match(text, /500 µs of processor time and tangd-exec 4500 µs, 9\.0 times as much/)
  assert.match(text, /fork mode: not measured\. tangd here has no fork mode/)
  assert.match(text, /Ours takes 100 ms, 90 ms of it processor time; clevis-decrypt takes 110 ms/)
  assert.doesNotMatch(text, /undefined|NaN/)
})

test('both forms hold every figure of every program', () => {
  for (const text of [asTable(machine, [slowServer]), asMarkdown(machine, [slowServer])]) {
    assert.match(text, /ours.*requestsPerSecond 900, cpuMicrosPerRequest 500/)
    assert.match(text, /tangd-exec.*requestsPerSecond 100, cpuMicrosPerRequest 4500/)
    assert.match(text, /tangd-fork.*not measured/)
    assert.match(text, /requestsPerSecond 9 \(paired 9\), cpu 9 \(paired 9\)/)
  }
})
