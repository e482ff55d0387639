import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import { bindVault } from './bind.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { type FleetEvent, rekeyFleet } from './fleet.ts'
import { type Bench, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { reportVault } from './report.ts'
import { unlockVault } from './unlock.ts'

const keyslotsSize = 2 * 1024 * 1024

describe('rekeying a fleet', () => {
  let bench: Bench
  let servers: [Tang, Tang]
  before(async () => {
    bench = await makeBench()
    servers = [await bench.tang({ curve: 'P-256' }), await bench.tang({ curve: 'P-256' })]
  })
  after(async () => await bench[Symbol.asyncDispose]())

  async function fleet(name: string, count: number, server: Tang): Promise<VolumeRef[]> {
    const volumes: VolumeRef[] = []
    using secret = Secret.copy(passphrase)
    for (let index = 0; index < count; index += 1) {
      const volume = await bench.volume({ name: `${name}-${index}.img`, keyslotsSize })
      await bindVault(bench.deps, volume, tangPolicy([server]), { passphrase: secret })
      volumes.push(volume)
    }
    return volumes
  }

  it('rekeys what an exposed key touches, lists the rest and goes on after a stop', async () => {
    const [first, second] = servers
    const touched = await fleet('touched', 4, first)
    const others = await fleet('other', 2, second)
    const absent = { device: `${bench.path}/gone.img` }
    const exposed = first.thp
    await first.rotate()
    const events: FleetEvent[] = []
    const stop = new AbortController()
    const work = { id: 'exposed-1', volumes: [...touched, absent, ...others], affected: [exposed] }
    const stopped = rekeyFleet(bench.deps, {
      ...work,
      concurrency: 1,
      signal: stop.signal,
      onEvent: (event) => {
        events.push(event)
        if (event.state === 'rekeyed' && event.finished === 2) stop.abort()
      },
    })
    await assert.rejects(stopped, { name: 'AbortError' })
    const result = await rekeyFleet(bench.deps, { ...work, concurrency: 2 })
    assert.equal(result.rekeyed.length, 2)
    assert.equal(result.unaffected.length, 4)
    assert.deepEqual(
      result.failed.map(({ device, fault }) => [device, fault.code]),
      [[absent.device, 'vault.device_absent']],
    )
    for (const volume of touched) {
      const { slots } = await listVault(bench.deps, volume)
      assert.deepEqual(
        slots.map(({ keyslot }) => keyslot),
        [0, 2],
      )
      assert.equal((await reportVault(bench.deps, volume))[0]?.rotated, false)
    }
    await first.forget()
    for (const volume of [...touched, ...others]) {
      assert.equal((await unlockVault(bench.deps, volume)).state, 'tested')
    }
    assert.deepEqual(events.at(-1)?.state, 'rekeyed')
  })

  it('keeps to its width and reports progress', async () => {
    const [, second] = servers
    const volumes = await fleet('width', 5, second)
    let running = 0
    let most = 0
    const finished: number[] = []
    await rekeyFleet(bench.deps, {
      id: 'width',
      volumes,
      concurrency: 2,
      onEvent: (event) => {
        running += event.state === 'started' ? 1 : -1
        most = Math.max(most, running)
        if (event.state !== 'started') finished.push(event.finished)
        assert.equal(event.total, 5)
      },
    })
    assert.equal(most, 2)
    assert.deepEqual(finished, [1, 2, 3, 4, 5])
  })

  it('refuses a name that is a path', async () => {
    const bad = rekeyFleet(bench.deps, { id: '../x', volumes: [] })
    await assert.rejects(bad, (error) => isFault(error, 'vault.name_invalid'))
  })

  it('leaves a volume whose server does not answer as it was', async () => {
    const [, second] = servers
    const [volume] = await fleet('away', 1, second)
    assert.ok(volume)
    await second.stop()
    const work = { id: 'away', volumes: [volume] }
    // One that is not there fails at once, and is listed in its place.
    const absent = { device: `${bench.path}/nowhere.img` }
    const { failed } = await rekeyFleet(bench.deps, { ...work, volumes: [volume, absent] })
    assert.deepEqual(
      failed.map(({ device, fault }) => [device, fault.kind]),
      [
        [volume.device, 'unavailable'],
        [absent.device, 'absent'],
      ],
    )
    await second.start()
    assert.equal((await rekeyFleet(bench.deps, work)).rekeyed.length, 1)
  })
})
