import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { CommandFrame } from '@holdfast/link'
import type { AgentFrame } from '@holdfast/protocol/frames'
import fc from 'fast-check'
import type { CommandHandlers } from './command-handler.ts'
import { Commands } from './commands.ts'
import { agentFault } from './faults.ts'

type Handlers = { -readonly [Kind in keyof CommandHandlers]: CommandHandlers[Kind] }

async function bench() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-commands-'))
  const delivered: AgentFrame[] = []
  const all: Commands[] = []
  const handlers: Handlers = {}
  const open = () => {
    const commands = new Commands({
      directory,
      handlers,
      deliver: async (frame) => {
        delivered.push(frame)
      },
      send: async () => undefined,
      signal: new AbortController().signal,
    })
    all.push(commands)
    return commands
  }
  return {
    directory,
    handlers,
    open,
    delivered,
    results: () => delivered.filter((frame) => frame.kind === 'result'),
    written: () => readFile(join(directory, 'commands.json'), 'utf8'),
    [Symbol.asyncDispose]: async () => {
      for (const commands of all) await commands[Symbol.asyncDispose]()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

const frame = (
  id: string,
  command: CommandFrame['command'],
  given: Record<string, unknown> = {},
  issue = 1,
): CommandFrame => ({
  kind: 'command',
  ...{ id, command, arguments: given, by: 'test', issue, signature: '' },
})

async function until(look: () => boolean): Promise<void> {
  for (let turn = 0; turn < 12_000 && !look(); turn += 1)
    await new Promise((resolve) => setTimeout(resolve, 5))
  assert.ok(look())
}

const forever = (signal: AbortSignal) =>
  new Promise<never>((_, reject) =>
    signal.addEventListener('abort', () => reject(new Error('stopped')), { once: true }),
  )

test('a command that comes again is answered from the record, also by the next agent', async () => {
  await using lab = await bench()
  let runs = 0
  lab.handlers.rehearse = {
    restart: 'again',
    run: async () => {
      runs += 1
      return { ways: [], runs }
    },
  }
  const first = lab.open()
  await first.take(frame('one', 'rehearse'))
  await until(() => lab.results().length === 1)
  await first.take(frame('one', 'rehearse'))
  await first[Symbol.asyncDispose]()
  await lab.open().take(frame('one', 'rehearse'))
  await until(() => lab.results().length === 3)
  assert.equal(runs, 1)
  for (const result of lab.results()) assert.deepEqual(result, lab.results()[0])
})

test('a stop in the middle: what bears it is run again, the rest is answered as interrupted', async () => {
  await using lab = await bench()
  const calls: string[] = []
  let stuck = true
  lab.handlers.rekey = {
    restart: 'again',
    run: async ({ signal, again, by }) => {
      calls.push(`rekey ${again} ${by}`)
      if (stuck) await forever(signal)
      return { ways: [] }
    },
  }
  lab.handlers.unlock = {
    restart: 'interrupted',
    run: async ({ signal }) => {
      calls.push('unlock')
      return await forever(signal)
    },
  }
  const before = lab.open()
  await before.take(frame('rekey', 'rekey'))
  const sealed = 'aaaa.bbbb.cccc.dddd.eeee'
  await before.take(frame('unlock', 'unlock', { sealed }))
  await until(() => calls.length === 2)
  assert.doesNotMatch(await lab.written(), /aaaa/, 'a pushed passphrase is written down')
  await before[Symbol.asyncDispose]()
  assert.deepEqual(lab.results(), [], 'a stop of the agent is no result')
  stuck = false
  const after = lab.open()
  await after.resume()
  await until(() => lab.results().length === 2)
  const byId = new Map(lab.results().map((result) => [result.command, result]))
  assert.equal(byId.get('rekey')?.ok, true)
  assert.equal(byId.get('unlock')?.code, 'agent.command_interrupted')
  assert.deepEqual(calls, ['rekey false test', 'unlock', 'rekey true test'])
  await after.resume()
  await after.take(frame('unlock', 'unlock', { sealed }))
  await until(() => lab.results().length === 3)
  assert.equal(calls.length, 3, 'an interrupted one is not run when it comes again')
})

test('a long command keeps no other waiting, but those of its lane', async () => {
  await using lab = await bench()
  const order: string[] = []
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  lab.handlers.rehearse = {
    restart: 'again',
    lane: 'vault',
    run: async () => {
      order.push('rehearse begins')
      await held
      order.push('rehearse ends')
      return { ways: [] }
    },
  }
  lab.handlers.rekey = {
    restart: 'again',
    lane: 'vault',
    run: async () => {
      order.push('rekey')
      return { ways: [] }
    },
  }
  lab.handlers.restart = {
    restart: 'again',
    run: async ({ given }) => {
      order.push(`restart ${given.service}`)
      throw agentFault('agent.service_unknown', 'no')
    },
  }
  const commands = lab.open()
  await commands.take(frame('1', 'rehearse'))
  await commands.take(frame('2', 'rekey'))
  await commands.take(frame('3', 'restart', { service: 'web' }))
  await until(() => order.includes('restart web'))
  release()
  await until(() => lab.results().length === 3)
  assert.deepEqual(order, ['rehearse begins', 'restart web', 'rehearse ends', 'rekey'])
  assert.equal(lab.results()[0]?.code, 'agent.service_unknown')
})

test('unknown commands and wrong arguments are answered, and nothing is begun', async () => {
  await using lab = await bench()
  lab.handlers.restart = {
    restart: 'again',
    run: async () => {
      throw new Error('it must not run')
    },
  }
  const commands = lab.open()
  await commands.take(frame('1', 'reboot'))
  await commands.take(frame('2', 'restart', { service: 'web', forze: true }))
  await commands.take(frame('3', 'restart', { service: '../x' }))
  await until(() => lab.results().length === 3)
  const codes = new Map(lab.results().map(({ command, code }) => [command, code]))
  assert.equal(codes.get('1'), 'agent.command_unknown')
  assert.equal(codes.get('2'), 'agent.request_malformed')
  assert.equal(codes.get('3'), 'agent.request_malformed')
  assert.equal(JSON.parse(await lab.written()).begun.length, 0)
})

test('output goes to whoever listens, and ends with the session', async () => {
  await using lab = await bench()
  const begun: string[] = []
  lab.handlers.logs = {
    restart: 'interrupted',
    run: async ({ output }) => {
      for (let index = 0; ; index += 1) {
        await output(`${index}`)
        begun.push(`${index}`)
        if (index === 2) commands.connected(false)
      }
    },
  }
  const commands = lab.open()
  await commands.take(frame('unheard', 'logs'))
  await until(() => lab.results().length === 1)
  assert.deepEqual([lab.results()[0]?.code, begun.length], ['agent.not_connected', 0])
  commands.connected(true)
  await commands.take(frame('heard', 'logs'))
  await until(() => lab.results().length === 2)
  assert.equal(lab.results()[1]?.code, 'agent.not_connected')
  assert.deepEqual(begun, ['0', '1', '2'])
})

test('what is remembered is bounded, and what is under way is never forgotten', async () => {
  await using lab = await bench()
  lab.handlers.restart = {
    restart: 'again',
    lane: 'services',
    run: async () => ({ service: { name: 'web', state: 'running' } }),
  }
  lab.handlers.rekey = { restart: 'again', run: async ({ signal }) => await forever(signal) }
  const commands = lab.open()
  await commands.take(frame('long', 'rekey'))
  for (let index = 0; index < 220; index += 1)
    await commands.take(frame(`c${index}`, 'restart', { service: 'web' }, 10 + index))
  await until(() => lab.results().length === 220)
  const { begun, results } = JSON.parse(await lab.written())
  assert.deepEqual([begun.length, begun[0].id, results.length], [1, 'long', 200])
  assert.equal(results.at(-1).command, 'c219')
})

test('an old order that is sent again after hundreds of others is refused, one that is late is not', async () => {
  await using lab = await bench()
  const runs = new Map<string, number>()
  lab.handlers.restart = {
    restart: 'again',
    lane: 'services',
    run: async ({ id }) => {
      runs.set(id, (runs.get(id) ?? 0) + 1)
      return { service: { name: 'web', state: 'running' } }
    },
  }
  let commands = lab.open()
  const order = (id: string, issue: number) => frame(id, 'restart', { service: 'web' }, issue)
  const settled = async (count: number) => await until(() => lab.results().length === count)
  await commands.take(order('first', 1_000))
  for (let index = 0; index < 199; index += 1)
    await commands.take(order(`c${index}`, 1_010 + index))
  await settled(200)
  await commands.take(order('late', 1_005))
  await settled(201)
  assert.equal(runs.get('late'), 1, 'one of before that nobody has seen is carried out')

  // `first` has just been forgotten, and nothing else; the next agent knows it too.
  await commands[Symbol.asyncDispose]()
  commands = lab.open()
  await commands.take(order('first', 1_000))
  await settled(202)
  assert.equal(lab.results().at(-1)?.code, 'agent.command_stale')
  await commands.take(order('late', 1_005))
  await settled(203)
  assert.equal(lab.results().at(-1)?.ok, true)
  assert.ok(!('issue' in (lab.results().at(-1) ?? {})))
  await commands.take(order('later still', 1_001))
  await settled(204)
  assert.equal(lab.results().at(-1)?.ok, true, 'above all that was forgotten')
  for (const [id, count] of runs) assert.equal(count, 1, id)
  assert.equal(runs.get('first'), 1)
})

test('in whatever order commands come, none is carried out twice and what is refused was old', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.shuffledSubarray([...Array(210).keys()], { minLength: 205 }),
      fc.array(fc.nat(209), { maxLength: 30 }),
      async (first, again) => {
        await using lab = await bench()
        const runs: string[] = []
        lab.handlers.restart = {
          restart: 'again',
          lane: 'services',
          run: async ({ id }) => {
            runs.push(id)
            return { service: { name: 'web', state: 'running' } }
          },
        }
        const commands = lab.open()
        const sent = [...first, ...again]
        for (const [turn, issue] of sent.entries()) {
          await commands.take(frame(`c${issue}`, 'restart', { service: 'web' }, issue))
          await until(() => lab.results().length === turn + 1)
        }
        assert.equal(new Set(runs).size, runs.length)
        const refused = lab.results().filter(({ code }) => code === 'agent.command_stale')
        for (const { command } of refused) assert.ok(Number(command.slice(1)) < 10)
      },
    ),
    { numRuns: 4 },
  )
})
