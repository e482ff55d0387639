import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { RunningProgram } from '@holdfast/base'
import { listBackups, luksType } from '@holdfast/vault'
import { type AgentLab, agentLab } from './agent-lab.ts'
import { isReceiptOf, type SignedReceipt } from './receipt.ts'

// An enrolled node's own process, killed after each of its effects while it carries out an order that
// destroys or renews keys, then started again: the end is the same wherever the power was cut.

/** An enrolled node at rest, to be put back for every kill. */
async function template(lab: AgentLab) {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-template-'))
  const first = await lab.startProcess(0)
  assert.ok(first !== undefined)
  await lab.until('an open port', () => lab.events.find(({ kind }) => kind === 'enrolment_port'))
  await lab.enrol(true)
  await lab.until('rest', () => (atRest(lab) ? true : undefined))
  await first[Symbol.asyncDispose]()
  const places = [lab.options.directory, lab.options.runtimeDirectory, lab.device]
  const copyOf = (index: number) => join(path, `${index}`)
  for (const [index, place] of places.entries()) await cp(place, copyOf(index), { recursive: true })
  const restore = async () => {
    for (const [index, place] of places.entries()) {
      await rm(place, { recursive: true, force: true })
      await cp(copyOf(index), place, { recursive: true })
    }
    lab.events.length = 0
    lab.reports.length = 0
    lab.frames.length = 0
  }
  return { restore, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

function atRest({ events }: AgentLab): boolean {
  const last = events.findLast((event) => event.kind === 'phase')
  return last?.kind === 'phase' && last.phase === 'open' && last.task === undefined
}

/** Sends the order and waits until it is over; false when the process ended before that. */
async function carriedOut(lab: AgentLab, running: RunningProgram, what: Order): Promise<boolean> {
  let ended = false
  void running.ended.then(() => {
    ended = true
  })
  const answer = () =>
    lab.frames.find((frame) => frame.kind === 'result' && frame.command === what.id)
  const isOver = () => what.isOver?.(lab) ?? answer() !== undefined
  const settled = () => (isOver() || ended ? true : undefined)
  const ready = () => lab.reports.length > 0 && what.isReady?.(lab) !== false
  await lab.until('a session', () => (ready() ? true : settled()))
  if (settled() === undefined)
    void lab.command(what.command, what.given, what.id).catch(() => undefined) // killed on the way
  await lab.until('an end', settled)
  const result = answer()
  if (result?.kind === 'result') assert.equal(result.ok, true, result.message)
  return isOver()
}

interface Order {
  id: string
  command: Parameters<AgentLab['command']>[0]
  given: Record<string, unknown>
  /** When it may be given; as soon as there is a session otherwise. */
  isReady?: (lab: AgentLab) => boolean
  /** When it is over; with its result otherwise. */
  isOver?: (lab: AgentLab) => boolean
}

/** Orders once with a kill, then without; gives whether the kill came. */
async function withKill(lab: AgentLab, killAt: number, what: Order): Promise<boolean> {
  const first = await lab.startProcess(killAt)
  const whole = first !== undefined && (await carriedOut(lab, first, what))
  await first?.[Symbol.asyncDispose]()
  if (whole) return false
  lab.events.length = 0
  lab.reports.length = 0
  const second = await lab.startProcess(0)
  assert.ok(second !== undefined)
  assert.equal(await carriedOut(lab, second, what), true)
  await second[Symbol.asyncDispose]()
  return true
}

const step = Number(process.env.HOLDFAST_CRASH_STEP ?? 11)
const from = Number(process.env.HOLDFAST_CRASH_FROM ?? 1)
const newId = () => randomBytes(16).toString('base64url')

async function everyKill(
  lab: AgentLab,
  orderOf: () => Order,
  check: (order: Order) => Promise<void>,
  before: () => Promise<void> = async () => undefined,
) {
  await using made = await template(lab)
  let killed = true
  let killAt = from
  for (; killed && killAt < 400; killAt += step) {
    await made.restore()
    await before()
    const what = orderOf()
    try {
      killed = await withKill(lab, killAt, what)
      await check(what)
    } catch (cause) {
      throw new Error(`killed at effect ${killAt}`, { cause })
    }
  }
  assert.ok(!killed, 'an order has fewer effects than that')
  assert.ok(killAt > 20)
}

test('killed in the middle of panic 2, a node ends destroyed, with a receipt and a way back', async () => {
  await using lab = await agentLab()
  let node = ''
  let uuid = ''
  let keys = ''
  const orderOf = () => ({
    id: newId(),
    command: 'panic' as const,
    given: { level: 2 },
    // The process goes on as a new machine, which shows a code.
    isOver: ({ events }: AgentLab) => events.some(({ kind }) => kind === 'code'),
  })
  const check = async (what: Order) => {
    node ||= lab.card().node
    assert.equal(await luksType({ device: lab.device }), undefined)
    const [known] = await readdir(join(lab.options.directory, 'vaults'))
    uuid ||= known ?? ''
    assert.equal((await listBackups(lab.options.directory, uuid)).backups.length, 1)
    const file = join(lab.options.directory, 'receipts', `${what.id}.json`)
    const receipt = JSON.parse(await readFile(file, 'utf8')) as SignedReceipt // the agent wrote it
    assert.ok(isReceiptOf(node, receipt))
    assert.equal((receipt.receipt.vault as { level: number } | null)?.level, 2)
    const again = await readFile(join(lab.options.directory, 'keys.json'), 'utf8')
    assert.notEqual(again, keys, 'the new machine has keys of its own')
  }
  await everyKill(lab, orderOf, check, async () => {
    keys = await readFile(join(lab.options.directory, 'keys.json'), 'utf8')
  })
})

test('killed in the middle of a rekey, a node keeps a way in and ends renewed', async () => {
  await using lab = await agentLab()
  const orderOf = () => ({ id: newId(), command: 'rekey' as const, given: {}, isReady: atRest })
  const check = async () => {
    lab.events.length = 0
    lab.reports.length = 0
    const again = await lab.startProcess(0)
    assert.ok(again !== undefined)
    await lab.until('it is open', () => (atRest(lab) ? true : undefined))
    const report = await lab.until('a report', () =>
      lab.reports.findLast(({ phase }) => phase === 'open'),
    )
    const ways = report.ways.map(({ purpose, label }) => `${purpose} ${label}`.trim())
    assert.deepEqual(ways.sort(), ['automatic temporary', 'recovery'])
    await again[Symbol.asyncDispose]()
  }
  await everyKill(lab, orderOf, check)
})
