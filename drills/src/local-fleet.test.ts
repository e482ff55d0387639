import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isFault } from '@holdfast/base'
import type { FleetRehearsal } from './fleet.ts'
import { type RunningFleet, startLocalFleet } from './local-fleet.ts'

const keyserver = fileURLToPath(import.meta.resolve('@holdfast/keyserver')).replace(
  /index\.ts$/,
  'main.ts',
)
const command = { program: process.execPath, args: [keyserver] }

function margins({ ways }: FleetRehearsal): Record<string, number> {
  return Object.fromEntries(ways.map(({ way, margin }) => [way, margin]))
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe('the local fleet', () => {
  let directory = ''
  let fleet: RunningFleet
  const progress: string[] = []
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'drills-'))
    fleet = await startLocalFleet({
      directory: join(directory, 'fleet'),
      command,
      volumeSize: 32 * 1024 * 1024,
      onProgress: ({ done, total }) => progress.push(`${done}/${total}`),
    })
  })
  after(async () => {
    await fleet?.[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })

  it('runs each server in a process of its own, tells its progress, and keeps keys private', async () => {
    const pids = fleet.servers.map(({ pid }) => pid)
    assert.equal(new Set([...pids, process.pid]).size, 4)
    assert.deepEqual(progress, ['1/5', '2/5', '3/5', '4/5', '5/5'])
    for (const { privateKeyPath } of fleet.holders) {
      assert.equal((await stat(privateKeyPath)).mode & 0o777, 0o600)
      assert.match(await readFile(privateKeyPath, 'utf8'), /BEGIN PRIVATE KEY/)
    }
    assert.deepEqual(
      (await fleet.status()).servers.map(({ running }) => running),
      [true, true, true],
    )
  })

  it('rehearses every pin of both ways in, with the margin', async () => {
    const rehearsal = await fleet.rehearse()
    assert.deepEqual(margins(rehearsal), { automatic: 1, recovery: 1 })
    assert.deepEqual(
      rehearsal.pins.map(({ way, label, state }) => [way, label, state]).sort(),
      [
        ...fleet.servers.map(({ url }) => ['automatic', url, 'proven']),
        ...fleet.holders.map(({ name }) => ['recovery', name, 'proven']),
      ].sort(),
    )
    assert.ok(rehearsal.pins.every(({ lastProof }) => lastProof === rehearsal.at))
  })

  it('shows a killed server as failing with its last proof, and as proven when it is back', async () => {
    const [server] = fleet.servers
    assert.ok(server?.pid)
    const { url, pid } = server
    const { at } = await fleet.rehearse()
    await server.kill()
    assert.equal(isAlive(pid), false)
    const without = await fleet.rehearse()
    const failing = without.pins.find(({ label }) => label === url)
    assert.equal(failing?.state, 'failed')
    assert.equal(failing?.fault?.code, 'seal.server_unreachable')
    assert.equal(failing?.lastProof, at)
    assert.equal(margins(without).automatic, 0)
    await server.start()
    assert.equal(server.url, url)
    assert.equal(margins(await fleet.rehearse()).automatic, 1)
  })

  it('shows every way as failing while the header is destroyed', async () => {
    const { device } = fleet.volume
    const header = await readFile(device)
    try {
      await writeFile(device, Buffer.alloc(header.length))
      assert.equal((await fleet.status()).volume.header, 'unreadable')
      const { ways, pins } = await fleet.rehearse()
      assert.equal(ways.length, 2)
      assert.ok(
        ways.every(({ state, fault }) => state === 'failed' && fault?.code === 'vault.not_luks'),
      )
      assert.ok(pins.every(({ state }) => state === 'failed'))
    } finally {
      await writeFile(device, header)
    }
    assert.deepEqual(margins(await fleet.rehearse()), { automatic: 1, recovery: 1 })
  })

  it('backs the header up, sealed, when the volume is made', async () => {
    const [uuid = ''] = await readdir(join(fleet.volume.stateDirectory, 'vaults'))
    const folder = join(fleet.volume.stateDirectory, 'vaults', uuid, 'headers')
    assert.equal((await readdir(folder)).filter((name) => name.endsWith('.jwe')).length, 1)
  })

  it('refuses a directory that holds something, and touches nothing in it', async () => {
    await assert.rejects(startLocalFleet({ directory, command }), (error) =>
      isFault(error, 'drills.directory_not_empty'),
    )
    assert.deepEqual(await readdir(directory), ['fleet'])
  })

  it('leaves no process and no file behind, also when starting is aborted', async () => {
    const place = join(directory, 'second')
    const stop = new AbortController()
    const start = startLocalFleet(
      {
        directory: place,
        command,
        servers: 1,
        threshold: 1,
        onProgress: ({ done }) => done === 1 && stop.abort(new Error('enough')),
      },
      stop.signal,
    )
    await assert.rejects(start, /enough/)
    assert.deepEqual(await readdir(place), [])
    const pids = fleet.servers.flatMap(({ pid }) => pid ?? [])
    await fleet[Symbol.asyncDispose]()
    assert.equal(pids.length, 3)
    assert.ok(pids.every((pid) => !isAlive(pid)))
    assert.deepEqual(await readdir(join(directory, 'fleet')), [])
  })
})
