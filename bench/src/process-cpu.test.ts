import assert from 'node:assert/strict'
import { test } from 'node:test'
import { run } from '@holdfast/base'
import { childrenTime, parseStat, processorTime, treeOf } from './process-cpu.ts'

const line = (pid: number, name: string, parent: number, times: number[]) =>
  `${pid} (${name}) S ${parent} 1 1 0 -1 4194560 100 0 0 0 ${times.join(' ')} 20 0 1 0 5 0 0`

test('a name with blanks and parentheses does not shift the fields', () => {
  const parsed = parseStat(line(42, 'a) R 7 (b', 7, [3, 4, 50, 60]))
  assert.deepEqual(parsed, { pid: 42, parent: 7, own: 7, children: 110 })
})

test('a tree holds the root and everything below it, and nothing beside it', () => {
  const processes = [
    { pid: 1, parent: 0 },
    { pid: 5, parent: 1 },
    { pid: 4, parent: 5 },
    { pid: 9, parent: 4 },
    { pid: 6, parent: 1 },
  ].map((process) => ({ ...process, own: 0, children: 0 }))
  assert.deepEqual(
    treeOf(processes, 5).map(({ pid }) => pid),
    [5, 4, 9],
  )
  assert.deepEqual(treeOf(processes, 99), [])
})

test('work in this process and in a program it ran is counted', async () => {
  const before = processorTime(process.pid)
  const children = childrenTime()
  const start = process.cpuUsage()
  while (process.cpuUsage(start).user < 60_000) Math.hypot(start.user, 1)
  const own = processorTime(process.pid).micros - before.micros
  assert.ok(own >= 40_000, `${own} µs of at least 60 000, in ticks of 10 000`)
  await run(process.execPath, [
    '-e',
    'const s = process.cpuUsage(); while (process.cpuUsage(s).user < 60000) Math.hypot(1, 2)',
  ])
  assert.ok(childrenTime() - children >= 50_000)
  assert.ok(before.processes >= 1)
})
