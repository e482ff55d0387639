import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isObject, parseJsonObject, type RunResult } from '@holdfast/base'
import { agentOf } from './agent-processes.ts'
import { examine } from './doctor-findings.ts'
import { broken, node as nodeOf, now, requireCommands } from './doctor-fixture.ts'
import { fleetRules } from './doctor-fleet.ts'
import { nodeRules } from './doctor-node.ts'
import { serverRules } from './doctor-servers.ts'
import type { FleetHere } from './fleet-here.ts'
import { Stage } from './stage.ts'

// The doctor in a local fleet: what was stopped there is started there, and by no systemd.

const usual = '/run/holdfast/fleet'

function fleet(stopped: readonly string[], where = ''): FleetHere {
  const process = (name: string) => ({ name, running: !stopped.includes(name) })
  return {
    directory: usual,
    where,
    processes: {
      coordinator: { ...process('coordinator-1'), url: 'https://127.0.0.1:1' },
      servers: ['server-1', 'server-2', 'server-3'].map(process),
      serversNeeded: 2,
      nodes: ['web', 'a1', 'b2', 'c3'].map(process),
    },
  }
}

const peers = (away: readonly string[]) =>
  ['a1', 'b2', 'c3'].map((name) => nodeOf(name, { connected: !away.includes(name) }))

test('a key server that was stopped is started again; too few of them fail', async () => {
  const look = (here: FleetHere) => examine(serverRules, here)
  assert.equal(look(fleet([]))[0]?.state, 'ok')
  const one = look(fleet(['server-2'], ' --directory /srv/f'))
  assert.equal(one[0]?.state, 'warning')
  assert.deepEqual(one[0]?.next, ['holdfast up start server-2 --directory /srv/f'])
  const two = look(fleet(['server-1', 'server-2']))
  assert.equal(two[0]?.state, 'failed')
  assert.deepEqual(two[0]?.next, ['holdfast up start server-1', 'holdfast up start server-2'])
  await requireCommands([...one, ...two])
})

test('a node without power gets it back, and a ward is sent to the guardians without', async () => {
  const web = nodeOf('web', { connected: false })
  const off = examine(nodeRules, { node: web, nodes: peers([]), now, here: fleet(['web']) })
  assert.equal(broken(off)?.layer, 'session')
  assert.deepEqual(broken(off)?.next, ['holdfast node start web'])
  const facts = { node: nodeOf('web'), nodes: peers(['b2', 'c3']), now }
  const ward = examine(nodeRules, { ...facts, here: fleet(['b2']) })
  assert.equal(broken(ward)?.layer, 'guardians')
  assert.deepEqual(broken(ward)?.next, ['holdfast node start b2', 'holdfast doctor node c3'])
  const all = { nodes: [nodeOf('web'), ...peers(['b2'])], now, here: fleet(['b2']) }
  const whole = examine(fleetRules, all)
  assert.deepEqual(broken(whole)?.next, ['holdfast node start b2'])
  assert.match(whole.at(-1)?.text ?? '', /comes back by itself/)
  const soon = examine(fleetRules, { ...all, nodes: [nodeOf('web'), ...peers([])] })
  assert.deepEqual(broken(soon)?.next, ['holdfast node start b2'], 'before its session is missed')
  const dark = examine(fleetRules, { ...all, here: fleet(['server-1', 'server-2']) })
  assert.match(dark.at(-1)?.text ?? '', /no node comes back before more key servers run/)
  await requireCommands([...off, ...ward, ...whole, ...dark])
})

test('where an agent keeps its files is read from its command line', () => {
  const words = (...rest: string[]) => ['node', 'main.ts', 'agent', 'serve', ...rest, ''].join('\0')
  assert.deepEqual(agentOf(words('--directory', 'n', '--device=/dev/x'), '/srv'), {
    directory: '/srv/n',
    device: '/dev/x',
  })
  assert.equal(agentOf(words('--device', '/dev/x'), '/srv'), undefined)
  assert.equal(agentOf('holdfast\0doctor\0node\0--directory\0n\0', '/srv'), undefined)
})

let stage: Stage
before(async () => {
  stage = await Stage.start(false)
})
after(async () => {
  await stage[Symbol.asyncDispose]()
})

/** The commands that a doctor of the running fleet names. */
async function commandsOf(directory: string, words: string): Promise<readonly unknown[]> {
  const { stdout, stderr } = await stage.shell(`cd ${directory} && holdfast ${words} --json`)
  const { next } = parseJsonObject(stdout.toString('utf8'), `of ${words}: ${stderr}`)
  return Array.isArray(next) ? next : []
}

/** What a look gives as soon as it says this: a node may be out of reach for a moment. */
async function untilItSays(look: () => Promise<RunResult>, pattern: RegExp): Promise<RunResult> {
  for (const deadline = performance.now() + 240_000; ; ) {
    const seen = await look()
    if (pattern.test(seen.stdout.toString('utf8'))) return seen
    assert.ok(performance.now() < deadline, `${seen.stdout.toString('utf8')}${seen.stderr}`)
  }
}

/** A node that comes back while two of three key servers are away says so, and what to type. */
async function startWithoutServers(directory: string, type: (command: string) => Promise<void>) {
  for (const stop of ['up stop server-1', 'up stop server-2', 'node kill node-3'])
    await type(`holdfast ${stop}`)
  await type('holdfast node start node-3')
  const status = (more: string) =>
    stage.shell(`cd ${directory} && holdfast node status node-3${more}`)
  const told = await untilItSays(() => status(' --json'), /"reason":"pins"/)
  const said = told.stdout.toString('utf8')
  const { locked } = parseJsonObject(said, 'the status')
  assert.ok(isObject(locked) && isObject(locked.guardians), said)
  assert.equal(locked.guardians.answered, 2)
  assert.ok(Array.isArray(locked.next), said)
  assert.deepEqual(locked.next.slice(0, 2), [
    'holdfast up start server-1',
    'holdfast up start server-2',
  ])
  const expected = /^tang {8}http:.*\nnext {8}holdfast up start server-1$/ms
  assert.equal((await untilItSays(() => status(''), expected)).code, 2)
  for (const name of ['server-1', 'server-2']) await type(`holdfast up start ${name}`)
}

/** The holders of a fleet on this machine are told where their keys are. */
async function recoverAsTold(directory: string, type: (command: string) => Promise<void>) {
  await type('holdfast coordinator seal')
  const { stdout } = await stage.shell(`cd ${directory} && holdfast coordinator recover`)
  const [, told = ''] = /^next: (.*)$/m.exec(stdout.toString('utf8')) ?? []
  assert.equal(told, 'holdfast holder answer NAME --key holders/NAME.key')
  for (const name of ['alice', 'bob']) await type(told.replaceAll('NAME', name))
  await type('holdfast coordinator status')
}

test('each process of a running fleet that was stopped comes back by the command that is named', async () => {
  await using running = (await stage.launch(['up', '--json', '--nodes', '3'])).running
  assert.ok(running.pid > 0)
  const directory = join(stage.root, 'run', 'fleet')
  const type = async (command: string) => {
    const { code, stderr } = await stage.shell(`cd ${directory} && ${command}`)
    assert.equal(code, 0, `${command}: ${stderr}`)
  }
  const stops: [string, string, string][] = [
    ['up stop server-1', 'doctor', 'holdfast up start server-1'],
    ['node kill node-2', 'doctor', 'holdfast node start node-2'],
    ['node kill node-2', 'doctor node node-2', 'holdfast node start node-2'],
    ['node kill node-2', 'doctor node --directory nodes/node-2/node', 'holdfast node start node-2'],
    ['up stop coordinator-1', 'doctor', 'holdfast up start coordinator-1'],
  ]
  for (const [stop, look, start] of stops) {
    await type(`holdfast ${stop}`)
    assert.equal((await commandsOf(directory, look))[0], start, look)
    await type(start)
  }
  await startWithoutServers(directory, type)
  await recoverAsTold(directory, type)
  // Agents of somebody else may run on this machine, and are named as well.
  const console = await commandsOf(directory, 'doctor node')
  for (const node of ['node-1', 'node-2', 'node-3']) {
    const place = join(directory, 'nodes', node, 'node')
    assert.ok(console.includes(`holdfast doctor node --directory ${place}`), console.join('\n'))
  }
  const lost = await stage.shell('holdfast doctor')
  assert.match(lost.stderr, new RegExp(`for the local fleet: cd ${directory};`))
})
