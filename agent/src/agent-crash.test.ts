import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RunningProgram } from '@holdfast/base'
import { type AgentLab, agentLab } from './agent-lab.ts'
import { atRest, crashFrom, crashStep } from './crash-lab.ts'
import type { TestGuardian } from './peer-fleet.ts'

// The agent's own process, killed after its effects while it is enrolled, then started again: the end
// is the same wherever the power was cut, for the first node of a fleet and for a later one.

/** The last order that was given in a lab. */
const orders = new WeakMap<AgentLab, Promise<void>>()

/** Waits for an end of the process, or for the node to be enrolled and at rest. */
async function untilRest(
  lab: AgentLab,
  running: RunningProgram,
  guardians: readonly TestGuardian[],
): Promise<'rest' | 'killed'> {
  let ended = false
  let ordered = false
  void running.ended.then(() => {
    ended = true
  })
  return await lab.until('rest or an end', () => {
    if (ended) return 'killed'
    const last = lab.events.findLast((event) => event.kind === 'phase')
    // One that was killed while it waited says so in its hello, and has no change of phase to tell.
    const waiting =
      last?.kind === 'phase'
        ? last.step === 'await_guardians'
        : lab.reports.at(-1)?.phase === 'enrolling'
    if (waiting && guardians.length > 0 && !ordered) {
      ordered = true
      // One after the other: an order to a session that has gone waits for the next one, too.
      const order = (orders.get(lab) ?? Promise.resolve()).then(() => lab.reshare(guardians, 1))
      const given = order.then(
        () => undefined,
        () => {
          ordered = false // killed on the way: it is given again
        },
      )
      orders.set(lab, given)
    }
    return atRest(lab) ? 'rest' : undefined
  })
}

/** Enrols the node if it asks for it; the kill may come in the middle of that. */
async function enrolIfAsked(
  lab: AgentLab,
  since: number,
  running: RunningProgram,
  genesis: boolean,
): Promise<void> {
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
    await lab.enrol(genesis)
  } catch {
    // The connection breaks a little before the end of the process is seen.
    await lab.until('the end that broke it off', () => ended || undefined)
  }
}

/** One enrolment, killed once; gives whether the kill came. */
async function enrolWithKill(killAt: number, genesis: boolean): Promise<boolean> {
  await using lab = await agentLab()
  const { fleet } = lab
  const guardians = genesis ? [] : [await fleet.guardian(), await fleet.guardian()]
  const first = await lab.startProcess(killAt)
  let killed = first === undefined
  if (first !== undefined) {
    await enrolIfAsked(lab, 0, first, genesis)
    killed = (await untilRest(lab, first, guardians)) === 'killed'
  }
  if (killed) {
    const since = lab.events.length
    const second = await lab.startProcess(0)
    assert.ok(second !== undefined)
    await enrolIfAsked(lab, since, second, genesis)
    assert.equal(await untilRest(lab, second, guardians), 'rest')
  }
  const label = genesis ? 'temporary' : 'epoch 1'
  await lab.until(`a report of ${label} and nothing else`, () => {
    const ways = lab.reports.at(-1)?.ways.map(({ purpose, label }) => `${purpose} ${label}`.trim())
    return ways?.join() === ['recovery', `automatic ${label}`].join() || undefined
  })
  return killed
}

for (const genesis of [true, false]) {
  const which = genesis ? 'the first node' : 'a later node'
  test(`killed in the middle of its enrolment, ${which} ends up enrolled`, async () => {
    let killed = true
    let killAt = crashFrom()
    for (; killed && killAt < 200; killAt += crashStep(9)) {
      killed = await enrolWithKill(killAt, genesis).catch((cause: unknown) => {
        throw new Error(`killed at effect ${killAt}`, { cause })
      })
    }
    assert.ok(!killed, 'an enrolment has fewer effects than that')
    assert.ok(killAt > 20)
  })
}
