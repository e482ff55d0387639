import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RunningProgram } from '@holdfast/base'
import { type AgentLab, agentLab } from './agent-lab.ts'

// The agent's own process, killed after each of its effects while it is enrolled, then started again:
// the end is the same wherever the power was cut.

/** Waits for an end of the process, or for the node to be enrolled and at rest. */
async function untilRest(lab: AgentLab, running: RunningProgram): Promise<'rest' | 'killed'> {
  let ended = false
  void running.ended.then(() => {
    ended = true
  })
  return await lab.until('rest or an end', () => {
    if (ended) return 'killed'
    const last = lab.events.findLast((event) => event.kind === 'phase')
    const rests = last?.kind === 'phase' && last.phase === 'open' && last.task === undefined
    return rests ? 'rest' : undefined
  })
}

/** Enrols the node if it asks for it; the kill may come in the middle of that. */
async function enrolIfAsked(lab: AgentLab, since: number, running: RunningProgram): Promise<void> {
  let ended = false
  void running.ended.then(() => {
    ended = true
  })
  const asks = await lab.until('an open port or a phase', () => {
    const fresh = lab.events.slice(since)
    if (fresh.some(({ kind }) => kind === 'enrolment_port')) return 'yes'
    const goesOn = fresh.some(({ kind }) => kind === 'phase' || kind === 'peer_port')
    return goesOn || ended ? 'no' : undefined
  })
  if (asks === 'no') return
  try {
    await lab.enrol(true)
  } catch {
    // The connection breaks a little before the end of the process is seen.
    await lab.until('the end that broke it off', () => ended || undefined)
  }
}

/** One enrolment, killed once; gives whether the kill came. */
async function enrolWithKill(killAt: number): Promise<boolean> {
  await using lab = await agentLab()
  const first = await lab.startProcess(killAt)
  let killed = first === undefined
  if (first !== undefined) {
    await enrolIfAsked(lab, 0, first)
    killed = (await untilRest(lab, first)) === 'killed'
  }
  if (killed) {
    const since = lab.events.length
    const second = await lab.startProcess(0)
    assert.ok(second !== undefined)
    await enrolIfAsked(lab, since, second)
    assert.equal(await untilRest(lab, second), 'rest')
  }
  const ways = lab.reports.at(-1)?.ways.map(({ purpose, label }) => `${purpose} ${label}`.trim())
  assert.deepEqual(ways, ['recovery', 'automatic temporary'], `kill ${killAt}`)
  return killed
}

// Each life takes seconds: every ninth effect by default, all of them with HOLDFAST_CRASH_STEP=1.
const step = Number(process.env.HOLDFAST_CRASH_STEP ?? 9)
const from = Number(process.env.HOLDFAST_CRASH_FROM ?? 1)

test('killed in the middle of its enrolment, a node ends up enrolled', async () => {
  let killed = true
  let killAt = from
  for (; killed && killAt < 200; killAt += step) {
    killed = await enrolWithKill(killAt).catch((cause: unknown) => {
      throw new Error(`killed at effect ${killAt}`, { cause })
    })
  }
  assert.ok(!killed, 'an enrolment has fewer effects than that')
  assert.ok(killAt > 20)
})
