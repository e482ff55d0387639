import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { after, before, describe, it } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import { createFetch, createPins, type Fetch, type Pins } from '@holdfast/seal'
import { bindVault, editVault, regenVault } from './bind.ts'
import { readMetadata, type VolumeRef } from './cryptsetup.ts'
import { type Bench, digest, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import type { VaultDeps } from './state.ts'
import { unlockVault } from './unlock.ts'

// A change that fails, for whatever reason and wherever, leaves the header byte for byte as it was.

describe('a change that fails', () => {
  let bench: Bench
  let servers: Tang[]
  before(async () => {
    bench = await makeBench()
    servers = [await bench.tang({ curve: 'P-256' }), await bench.tang({ curve: 'P-256' })]
  })
  after(async () => await bench[Symbol.asyncDispose]())

  async function bound(name: string, metadataSize = 64 * 1024): Promise<VolumeRef> {
    const volume = await bench.volume({ name, metadataSize })
    using secret = Secret.copy(passphrase)
    const wide = tangPolicy([...servers, ...servers], 2)
    await bindVault(bench.deps, volume, wide, { passphrase: secret })
    return volume
  }

  /** Repeats the operation with a later failure each time until it succeeds; says how often it failed. */
  async function failing(
    volume: VolumeRef,
    operation: (failAt: number) => Promise<unknown>,
  ): Promise<number> {
    const before = await digest(volume.device)
    for (let failAt = 1; failAt < 80; failAt += 1) {
      const succeeded = await operation(failAt).then(
        () => true,
        () => false,
      )
      if (succeeded) return failAt - 1
      assert.equal(await digest(volume.device), before, `failure ${failAt}`)
      assert.equal((await listVault(bench.deps, volume)).unfinished, undefined)
    }
    throw new Error('it never succeeded')
  }

  it('leaves the header as it was whichever request to a key server fails', async () => {
    for (const [name, metadataSize] of [
      ['requests', 64 * 1024],
      ['requests-tight', 16 * 1024],
    ] as const) {
      const volume = await bound(`${name}.img`, metadataSize)
      const failures = await failing(volume, (failAt) =>
        regenVault({ ...bench.deps, pins: failingPins(failAt) }, volume, 1, { timeout: 60_000 }),
      )
      assert.ok(failures > 8, `${failures} requests failed`)
      assert.equal((await unlockVault(bench.deps, volume)).keyslot, 2)
    }
  })

  it('leaves the header as it was or finishes, whenever it is stopped', async () => {
    const volume = await bound('stopped.img')
    const policy = tangPolicy(servers, 1)
    const failures = await failing(volume, (stopAt) =>
      stoppedAt(stopAt, (signal) => editVault(bench.deps, volume, 1, policy, { signal })),
    )
    assert.ok(failures > 6, `stopped ${failures} times`)
    const { slots } = await listVault(bench.deps, volume)
    assert.deepEqual(
      slots.map(({ keyslot }) => keyslot),
      [0, 2],
    )
  })

  it('leaves the header as it was when the wanted keyslot is taken', async () => {
    const volume = await bound('taken.img')
    const before = await digest(volume.device)
    using secret = Secret.copy(passphrase)
    const options = { passphrase: secret, keyslot: 1 }
    await assert.rejects(bindVault(bench.deps, volume, tangPolicy(servers, 1), options), (error) =>
      isFault(error, 'vault.header_area_full'),
    )
    assert.equal(await digest(volume.device), before)
    assert.equal((await readMetadata(volume)).keyslots.size, 2)
  })

  it('leaves the header as it was when an attacker answers for the key server', async () => {
    const volume = await bound('attacker.img')
    const before = await digest(volume.device)
    const [first, second] = servers as [Tang, Tang]
    // The second server answers for the first: other keys behind a known address.
    const fetch: Fetch = (url, options) =>
      createFetch()(url.replace(first.url, second.url), options)
    const deps: VaultDeps = { ...bench.deps, pins: createPins({ fetch }) }
    await assert.rejects(regenVault(deps, volume, 1, { timeout: 60_000 }))
    using secret = Secret.copy(passphrase)
    const bind = bindVault(deps, volume, tangPolicy([first]), { passphrase: secret })
    await assert.rejects(bind, (error) => isFault(error, 'seal.trust_refused'))
    assert.equal(await digest(volume.device), before)
  })
})

/** Pins whose requests all work up to the n-th and fail from there on. */
function failingPins(failAt: number): Pins {
  const real = createFetch()
  let requests = 0
  const fetch: Fetch = async (url, options) => {
    requests += 1
    if (requests >= failAt) return { status: 500, body: '' }
    return await real(url, options)
  }
  return createPins({ fetch })
}

/** Aborts the work right after its n-th effect. */
async function stoppedAt(
  stopAt: number,
  work: (signal: AbortSignal) => Promise<unknown>,
): Promise<unknown> {
  const stop = new AbortController()
  let effects = 0
  const count = () => {
    effects += 1
    if (effects === stopAt) stop.abort()
  }
  subscribe('holdfast:effect', count)
  try {
    return await work(stop.signal)
  } finally {
    unsubscribe('holdfast:effect', count)
  }
}
