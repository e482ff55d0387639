import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { NodeReport } from '@holdfast/protocol/frames'
import { agentLab } from './agent-lab.ts'
import { Reporting } from './reporting.ts'

test('a node whose power was cut never says that its vault is open', async () => {
  await using lab = await agentLab()
  const first = await lab.start()
  await lab.enrol(true)
  await lab.until('rest', () =>
    first.state.phase === 'open' && first.state.task === undefined ? true : undefined,
  )
  await first[Symbol.asyncDispose]()
  await rm(join(lab.options.runtimeDirectory, 'temporary-key'))
  const before = lab.reports.length
  await using agent = await lab.start()
  assert.equal(agent.state.phase, 'locked')
  const ready = await lab.resultOf(await lab.command('status'))
  assert.equal(ready.ok, true)
  const phases = lab.reports.slice(before).map(({ phase }) => phase)
  assert.deepEqual([...new Set(phases)], ['locked'])
})

/** Reports by what `now` says when they are made; each is only done when it is let. */
function bench() {
  const sent: string[] = []
  const making: (() => void)[] = []
  const here = { now: '', isOpen: true, failures: [] as string[] }
  const reporting = new Reporting({
    report: async () => {
      const lastErrors = [here.now]
      await new Promise<void>((resolve) => making.push(resolve))
      return { lastErrors } as unknown as NodeReport // the rest is not read here
    },
    send: async (frame) => {
      if (here.isOpen && frame.kind === 'report') sent.push(...frame.report.lastErrors)
    },
    onFailure: (text) => here.failures.push(text),
  })
  const change = (now: string) => {
    here.now = now
    reporting.changed()
  }
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
  /** Lets the newest that is being made be done first, again and again until none is. */
  const settle = async () => {
    for (await turn(); making.length > 0; await turn()) making.pop()?.()
    return [...sent]
  }
  return { here, reporting, change, turn, settle }
}

test('the report that comes last is the newest, however long one takes', async () => {
  const { change, turn, settle } = bench()
  change('one')
  await turn()
  for (const text of ['two', 'three', 'four']) change(text)
  assert.deepEqual(await settle(), ['one', 'four'])
})

test('what changes while a hello is on its way is told after it, and nothing else is', async () => {
  const { here, reporting, change, settle } = bench()
  here.isOpen = false
  const hello = reporting.greeting()
  change('meanwhile')
  assert.deepEqual(await settle(), [])
  assert.deepEqual((await hello).lastErrors, [''])
  here.isOpen = true
  reporting.welcomed()
  assert.deepEqual(await settle(), ['meanwhile'])
  const second = reporting.greeting()
  await settle()
  assert.deepEqual((await second).lastErrors, ['meanwhile'])
  reporting.welcomed()
  assert.deepEqual(await settle(), ['meanwhile'])
})

test('once it is over no report is being made, and none is begun', async () => {
  const { reporting, change, turn, settle } = bench()
  change('one')
  await turn()
  change('two')
  let isOver = false
  const ending = reporting[Symbol.asyncDispose]().then(() => {
    isOver = true
  })
  for (let turns = 0; turns < 5; turns += 1) await turn()
  assert.equal(isOver, false, 'the first one is still being made')
  assert.deepEqual(await settle(), ['one'])
  await ending
  change('three')
  assert.deepEqual(await settle(), ['one'])
})

test('a report that cannot be made is told, and the next one is made', async () => {
  const sent: string[] = []
  const failures: string[] = []
  const reports = [Promise.reject(new Error('no disk')), Promise.resolve()]
  const reporting = new Reporting({
    report: async () => {
      await reports.shift()
      return {} as unknown as NodeReport // it is not read here
    },
    send: async ({ kind }) => void sent.push(kind),
    onFailure: (text) => failures.push(text),
  })
  for (let count = 0; count < 2; count += 1) {
    reporting.changed()
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.deepEqual([failures, sent], [['no disk'], ['report']])
})
