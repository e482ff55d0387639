import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { listDirectory, run, Secret } from '@holdfast/base'
import { formatPolicy } from '@holdfast/seal'
import { bindVault } from './bind.ts'
import type { CrashOrder } from './crash-child.ts'
import { createVault } from './create.ts'
import { luksType, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { type Bench, clevis, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { passVault } from './pass.ts'
import { rehearseVault } from './rehearse.ts'
import { resumeVault } from './resume.ts'
import { unlockVault } from './unlock.ts'

// Each operation is run in a process that is killed after its first effect, then after its second,
// and so on until it gets to the end. After every kill the volume must still open, and after
// resuming it must be exactly as before or exactly as it should be.

const child = new URL('crash-child.ts', import.meta.url).href
const script = 'await (await import(process.argv[1])).crashChild()'
/** No operation has this many effects; a loop that gets here has not ended. */
const mostEffects = 120
/** Room for six keyslots: a small header is copied and compared faster. */
const keyslotsSize = 2 * 1024 * 1024

describe('after a kill at any external call or durable write', () => {
  let bench: Bench
  let servers: Tang[]
  let recovery: CrashOrder['recovery']
  before(async () => {
    bench = await makeBench()
    servers = [await bench.tang({ curve: 'P-256' }), await bench.tang({ curve: 'P-256' })]
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    recovery = {
      pin: 'person',
      config: { name: 'ann', key: publicKey.export({ format: 'jwk' }) },
    }
  })
  after(async () => await bench[Symbol.asyncDispose]())

  /** A volume with its state directory, to be copied for each kill. */
  async function template(
    name: string,
    prepare: (volume: VolumeRef) => Promise<unknown>,
    metadataSize = 64 * 1024,
  ): Promise<VolumeRef> {
    const volume = await bench.volume({ name: `${name}.img`, metadataSize, keyslotsSize })
    await rm(bench.deps.stateDirectory, { recursive: true, force: true })
    await prepare(volume)
    const state = join(bench.path, `${name}.state`)
    await cp(bench.deps.stateDirectory, state, { recursive: true }).catch(() => undefined)
    return volume
  }

  type Order = Pick<CrashOrder, 'operation' | 'keyslot'> & { policy?: CrashOrder['policy'] }

  /** Kills at 1, 2, 3 ... until the operation completes; `check` sees the wreck each time. */
  async function everyKill(
    from: VolumeRef,
    order: Order,
    check: (volume: VolumeRef, killed: boolean) => Promise<void>,
  ): Promise<number> {
    for (let killAt = 1; killAt < mostEffects; killAt += 1) {
      const { volume, killed } = await killedAt(from, order, killAt)
      await check(volume, killed)
      if (!killed) return killAt - 1
    }
    throw new Error(`${order.operation} did not complete within ${mostEffects} effects`)
  }

  /** Runs the operation on a copy of the template and kills it there. */
  async function killedAt(from: VolumeRef, order: Order, killAt: number) {
    const stateDirectory = bench.deps.stateDirectory
    const device = join(bench.path, 'crashing.img')
    await run('cp', ['--sparse=always', from.device, device])
    await rm(stateDirectory, { recursive: true, force: true })
    const state = from.device.replace(/\.img$/, '.state')
    await cp(state, stateDirectory, { recursive: true }).catch(() => undefined)
    const policy = formatPolicy(tangPolicy(servers.slice(0, 1)))
    const given = { device, stateDirectory, recovery, passphrase, killAt }
    const full: CrashOrder = { policy, ...order, ...given }
    const result = await run(process.execPath, ['--input-type=module', '--eval', script, child], {
      input: JSON.stringify(full),
      accept: [0, 137],
      environment: { NODE_COMPILE_CACHE: join(bench.path, 'compiled') },
    })
    return { volume: { device }, killed: result.code === 137 }
  }

  /** The wreck of an operation at its first kill that looks as wanted, kept as a template. */
  async function wreck(name: string, from: VolumeRef, order: Order, wanted: RegExp) {
    const device = join(bench.path, `${name}.img`)
    for (let killAt = 1; killAt < mostEffects; killAt += 1) {
      const { volume, killed } = await killedAt(from, order, killAt)
      assert.ok(killed, 'no kill left such a wreck')
      const { slots, unfinished } = await listVault(bench.deps, volume)
      const seen = slots.map(({ keyslot, purpose }) => `${keyslot} ${purpose}`).join(', ')
      if (unfinished === undefined || !wanted.test(seen)) continue
      await run('cp', ['--sparse=always', volume.device, device])
      await cp(bench.deps.stateDirectory, join(bench.path, `${name}.state`), { recursive: true })
      return { device }
    }
    throw new Error('no such wreck')
  }

  /** Something opens right after the kill; after resuming nothing is left over. */
  async function settled(volume: VolumeRef): Promise<string[]> {
    using typed = Secret.copy(passphrase)
    assert.ok(await testPassphrase(volume, typed), 'the passphrase opens')
    await resumeVault(bench.deps, volume)
    const { slots, orphans, unfinished } = await listVault(bench.deps, volume)
    assert.deepEqual([orphans, unfinished], [[], undefined])
    const { ways } = await rehearseVault(bench.deps, volume, { people: false })
    assert.ok(
      ways.every(({ proof, purpose }) => proof.state === 'proven' || purpose === 'recovery'),
    )
    return slots.map(({ keyslot, purpose }) => `${keyslot} ${purpose}`)
  }

  async function opensUnattended(volume: VolumeRef): Promise<void> {
    const { state } = await unlockVault(bench.deps, volume, { testOnly: true })
    assert.equal(state, 'tested')
  }

  function bound(volume: VolumeRef): Promise<unknown> {
    const secret = Secret.copy(passphrase)
    return bindVault(bench.deps, volume, tangPolicy(servers.slice(0, 1)), { passphrase: secret })
  }

  it('bind leaves the volume unbound or bound', async () => {
    const from = await template('bind', async () => undefined)
    const ends = new Set<string>()
    const effects = await everyKill(
      from,
      { operation: 'bind', keyslot: 0 },
      async (volume, killed) => {
        const slots = (await settled(volume)).join(', ')
        assert.ok(['0 unknown', '0 unknown, 1 automatic'].includes(slots), slots)
        ends.add(`${killed}: ${slots}`)
      },
    )
    assert.ok(effects > 8, `${effects} effects were interrupted`)
    assert.ok(ends.has('true: 0 unknown') && ends.has('false: 0 unknown, 1 automatic'))
  })

  it('regen leaves the old or the new binding, never none', async () => {
    const from = await template('regen', bound)
    const ends = new Set<string>()
    await everyKill(from, { operation: 'regen', keyslot: 1 }, async (volume) => {
      await opensUnattended(volume)
      ends.add((await settled(volume)).join(', '))
      await opensUnattended(volume)
    })
    assert.deepEqual([...ends].sort(), ['0 unknown, 1 automatic', '0 unknown, 2 automatic'])
  })

  it('regen in place leaves the old or the new binding, never none', async () => {
    const wide = tangPolicy([...servers, ...servers], 2)
    const from = await template(
      'tight',
      (volume) => {
        const secret = Secret.copy(passphrase)
        return bindVault(bench.deps, volume, wide, { passphrase: secret })
      },
      16 * 1024,
    )
    const ends = new Set<string>()
    await everyKill(from, { operation: 'regen', keyslot: 1 }, async (volume) => {
      await opensUnattended(volume)
      ends.add((await settled(volume)).join(', '))
    })
    assert.deepEqual([...ends].sort(), ['0 unknown, 1 automatic', '0 unknown, 2 automatic'])
  })

  it('resuming can be interrupted too, before the commit and after it', async () => {
    const from = await template('again', bound)
    const order = { operation: 'regen', keyslot: 1 } as const
    const wrecks = {
      slot: [/^0 unknown, 1 automatic, 2 unknown$/, '0 unknown, 1 automatic'],
      token: [/^0 unknown, 1 automatic, 2 automatic$/, '0 unknown, 1 automatic'],
      detached: [/^0 unknown, 1 unknown, 2 automatic$/, '0 unknown, 2 automatic'],
    } as const
    for (const [name, [wanted, end]] of Object.entries(wrecks)) {
      const left = await wreck(name, from, order, wanted)
      const kills = await everyKill(left, { operation: 'resume', keyslot: 0 }, async (volume) => {
        await opensUnattended(volume)
        assert.equal((await settled(volume)).join(', '), end)
      })
      assert.ok(kills > 3, `${kills} effects were interrupted`)
    }
  })

  it('edit leaves the old or the new policy', async () => {
    const from = await template('edit', bound)
    const policy = formatPolicy(tangPolicy(servers, 1))
    const ends = new Set<string>()
    await everyKill(from, { operation: 'edit', keyslot: 1, policy }, async (volume) => {
      await opensUnattended(volume)
      await settled(volume)
      const { slots } = await listVault(bench.deps, volume)
      ends.add(`${slots.length} ${slots[1]?.policy?.pin}`)
    })
    assert.deepEqual([...ends].sort(), ['2 sss', '2 tang'])
    const last = { device: join(bench.path, 'crashing.img') }
    assert.equal((await clevis(['luks', 'unlock', '-d', last.device, '-t', '2'])).code, 0)
  })

  it('unbind leaves the binding or nothing of it', async () => {
    const from = await template('unbind', bound)
    const ends = new Set<string>()
    await everyKill(from, { operation: 'unbind', keyslot: 1 }, async (volume) => {
      ends.add((await settled(volume)).join(', '))
    })
    assert.deepEqual([...ends].sort(), ['0 unknown', '0 unknown, 1 automatic'])
  })

  it('a recovery slot is there or not', async () => {
    const from = await template('holders', bound)
    const ends = new Set<string>()
    await everyKill(from, { operation: 'bind-recovery', keyslot: 0 }, async (volume) => {
      await opensUnattended(volume)
      ends.add((await settled(volume)).join(', '))
    })
    assert.deepEqual([...ends].sort(), [
      '0 unknown, 1 automatic',
      '0 unknown, 1 automatic, 2 recovery',
    ])
  })

  it('an owner passphrase is there or not', async () => {
    const from = await template('owner', bound)
    const ends = new Set<string>()
    await everyKill(from, { operation: 'bind-owner', keyslot: 0 }, async (volume) => {
      ends.add((await settled(volume)).join(', '))
    })
    assert.deepEqual([...ends].sort(), [
      '0 unknown, 1 automatic',
      '0 unknown, 1 automatic, 2 owner',
    ])
  })

  it('adopt can be run again', async () => {
    const from = await template('adopt', async (volume) => {
      const config = JSON.stringify(servers[0]?.config)
      const args = ['luks', 'bind', '-f', '-k', '-', '-d', volume.device, 'tang', config]
      assert.equal((await clevis(args, { input: passphrase })).code, 0)
    })
    const ends = new Set<string>()
    await everyKill(from, { operation: 'adopt', keyslot: 0 }, async (volume) => {
      await opensUnattended(volume)
      ends.add((await settled(volume)).join(', '))
    })
    assert.deepEqual([...ends].sort(), ['0 owner, 1 automatic', '0 unknown, 1 automatic'])
  })

  it('what was shown is replaced in the end', async () => {
    const from = await template('shown', async (volume) => {
      await bound(volume)
      using _shown = await passVault(bench.deps, volume, 1)
    })
    const ends = new Set<string>()
    await everyKill(from, { operation: 'maintain', keyslot: 1 }, async (volume) => {
      await opensUnattended(volume)
      const slots = (await settled(volume)).join(', ')
      const marked = (await listVault(bench.deps, volume)).slots.filter((slot) => slot.regenerate)
      ends.add(`${marked.length} ${slots}`)
    })
    assert.deepEqual([...ends].sort(), ['0 0 unknown, 2 automatic', '1 0 unknown, 1 automatic'])
  })

  it('a passphrase is never shown without its mark', async () => {
    const from = await template('pass', bound)
    const ends = new Set<string>()
    await everyKill(from, { operation: 'pass', keyslot: 1 }, async (volume, killed) => {
      const [, slot] = (await listVault(bench.deps, volume)).slots
      if (!killed) assert.ok(slot?.regenerate)
      ends.add(`${slot?.regenerate !== undefined}`)
    })
    assert.deepEqual([...ends].sort(), ['false', 'true'])
  })

  it('create can be run again and formats nothing twice once it is ready', async () => {
    const blank = await bench.image('blank.img')
    const options = { automatic: tangPolicy(servers.slice(0, 1)), ownerDerivation: cheap }
    const ends = new Set<string>()
    await everyKill(blank, { operation: 'create', keyslot: 0 }, async (volume, killed) => {
      const owner = Secret.copy(passphrase)
      const type = await luksType(volume)
      const again = await createVault(bench.deps, volume, { ...options, owner }).then(
        () => 'created',
        (error: { code?: string }) => error.code,
      )
      ends.add(`${killed} ${type} ${again}`)
      await opensUnattended(volume)
      assert.ok((await listDirectory(join(bench.deps.stateDirectory, 'vaults'))).length > 0)
    })
    assert.ok(ends.has('true undefined created') && ends.has('true luks2 created'))
    assert.ok(ends.has('false luks2 vault.already_formatted'))
  })
})

const cheap = { kind: 'pbkdf2', iterations: 1000 } as const
