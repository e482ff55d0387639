import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { HealthChecks, judgeHealth } from './health-checks.ts'
import type { Systemd } from './systemd.ts'

const never = new AbortController().signal

async function bench(systemd?: Systemd) {
  let healthy = true
  const server = createServer((_, response) => {
    response.writeHead(healthy ? 200 : 503).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  let now = 0
  const incidents: string[] = []
  let changes = 0
  const definitions: Record<string, unknown> = {}
  const checks = new HealthChecks({
    systemd,
    definitions: () => definitions,
    onChange: () => {
      changes += 1
    },
    onIncident: (code, text) => incidents.push(`${code}: ${text}`),
    clock: { ...systemClock, now: () => now },
  })
  return {
    checks,
    definitions,
    incidents,
    url: `http://127.0.0.1:${port}/`,
    place: `127.0.0.1:${port}`,
    changes: () => changes,
    turn: (well: boolean) => {
      healthy = well
    },
    look: async (at: number) => {
      now = at
      await checks.look(never)
      return Object.fromEntries([...checks.found].map(([name, { state }]) => [name, state]))
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

test('a check waits until its time is up, passes, and fails once for all who must know', async () => {
  await using lab = await bench()
  lab.definitions.web = { kind: 'http', target: lab.url, withinSeconds: 60 }
  lab.definitions.port = { kind: 'tcp', target: lab.place }
  assert.deepEqual(await lab.look(0), {}, 'nothing is checked while the vault is closed')
  lab.checks.opened(true)
  lab.turn(false)
  assert.deepEqual(await lab.look(30_000), { web: 'waiting', port: 'passing' })
  lab.turn(true)
  assert.deepEqual(await lab.look(40_000), { web: 'passing', port: 'passing' })
  const before = lab.changes()
  await lab.look(41_000)
  assert.equal(lab.changes(), before, 'what stays as it is is not told')
  lab.turn(false)
  assert.deepEqual(await lab.look(70_000), { web: 'failing', port: 'passing' })
  await lab.look(80_000)
  assert.deepEqual(lab.incidents, [`health.failing: web: ${lab.url} answers 503`])
  lab.checks.opened(false)
  assert.equal(lab.checks.found.size, 0)
})

test('one that is only wanted is no incident; what this machine cannot check says so', async () => {
  await using lab = await bench()
  lab.definitions.wanted = { kind: 'tcp', target: 'nowhere', required: false, withinSeconds: 1 }
  lab.definitions.unit = { kind: 'unit', target: 'web' }
  lab.definitions.command = { kind: 'command', target: '/bin/true' }
  lab.definitions.unknown = { kind: 'dance' }
  lab.checks.opened(true)
  assert.deepEqual(await lab.look(5_000), {
    wanted: 'failing',
    unit: 'refused',
    command: 'refused',
    unknown: 'refused',
  })
  assert.deepEqual(lab.incidents, [])
})

test('a failure before the deadline is waiting, after it failing, at every moment', () => {
  const no = { ok: false, text: 'no' }
  assert.equal(judgeHealth({ withinSeconds: 10 }, no, 9_999).state, 'waiting')
  assert.equal(judgeHealth({ withinSeconds: 10 }, no, 10_000).state, 'failing')
  assert.equal(judgeHealth({ withinSeconds: 10 }, { ok: true, text: '' }, 1).state, 'passing')
  assert.equal(judgeHealth({ withinSeconds: 10 }, { ok: undefined, text: '' }, 1).state, 'refused')
})
