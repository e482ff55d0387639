import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { type AgentLab, agentLab } from './agent-lab.ts'
import {
  atRest,
  commanded,
  everyKill,
  forget,
  newId,
  type Order,
  reportedWays,
} from './crash-lab.ts'
import type { TestGuardian } from './peer-fleet.ts'

// An enrolled node's own process, killed after its effects while the ways into its vault change, then
// started again: it opens by itself each time, and ends with the new ways and nothing else.

/** Starts it as after a power cut, with nothing in memory, and waits until it is open and at rest. */
async function opensAlone(lab: AgentLab): Promise<string[]> {
  forget(lab)
  const again = await lab.startProcess(0)
  assert.ok(again !== undefined)
  await lab.until('it is open', () => (atRest(lab) ? true : undefined))
  const ways = await reportedWays(lab)
  await again[Symbol.asyncDispose]()
  return ways
}

test('killed in the middle of a rekey, a node keeps a way in and ends renewed', async () => {
  await using lab = await agentLab()
  await everyKill(lab, {
    orderOf: () => ({ ...commanded('rekey'), isReady: atRest }),
    check: async () => assert.deepEqual(await opensAlone(lab), ['automatic temporary', 'recovery']),
  })
})

/** A set of guardians, until the node reports that it has it. */
function moveTo(guardians: readonly TestGuardian[], epoch: number): Order {
  return {
    id: newId(),
    isReady: atRest,
    give: (lab) => lab.reshare(guardians, epoch),
    isOver: (lab) => atRest(lab) && lab.reports.at(-1)?.epoch === epoch,
  }
}

/** Time goes by at the guardians: they release only so often within an hour. */
async function rest(guardians: readonly TestGuardian[]): Promise<void> {
  for (const { time } of guardians) time.now += 24 * 60 * 60 * 1000
}

async function guardiansOf({ fleet }: AgentLab): Promise<TestGuardian[]> {
  return [await fleet.guardian(), await fleet.guardian(), await fleet.guardian()]
}

test('killed in the middle of its move to guardians, a node ends with them alone', async () => {
  await using lab = await agentLab()
  const guardians = await guardiansOf(lab)
  await everyKill(lab, {
    before: () => rest(guardians),
    orderOf: () => moveTo(guardians, 1),
    check: async () => {
      await rm(join(lab.options.runtimeDirectory, 'temporary-key'), { force: true })
      assert.deepEqual(await opensAlone(lab), ['automatic epoch 1', 'recovery'])
    },
  })
})

test('killed in the middle of a re-share, a node is opened by the old set or the new one', async () => {
  await using lab = await agentLab()
  const all = [...(await guardiansOf(lab)), await lab.fleet.guardian()]
  await everyKill(lab, {
    prepare: async () => {
      const first = moveTo(all.slice(0, 3), 1)
      await first.give(lab)
      await lab.until('it has the first set', () => (first.isOver?.(lab) ? true : undefined))
      await rm(join(lab.options.runtimeDirectory, 'temporary-key'), { force: true })
    },
    before: () => rest(all),
    orderOf: () => moveTo(all.slice(1), 2),
    check: async () => assert.deepEqual(await opensAlone(lab), ['automatic epoch 2', 'recovery']),
  })
})
