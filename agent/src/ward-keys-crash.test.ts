import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import type { EcPublicJwk } from '@holdfast/crypto'
import { createPins, open, seal } from '@holdfast/seal'
import { publicPem } from './identity.ts'
import { runKilled } from './killed-child.ts'
import type { WardIdentity } from './peer-client.ts'
import { peerConfig, peerFleet, type TestGuardian } from './peer-fleet.ts'
import { peerPin } from './peer-pin.ts'
import { verifyReleaseLog } from './release-log.ts'
import { carryOut, openGuarded, type WardOrder } from './ward-keys-child.ts'

// A guardian's keys for its wards, with the guardian killed after every durable effect of making them,
// making those of later epochs, and destroying the earlier ones. Afterwards wards ask it over TLS.

const mostEffects = 60

/** One ward is re-shared twice, once only at the second attempt, the other one ends. */
function ordersFor(moving: WardIdentity, ending: WardIdentity): WardOrder[] {
  const of =
    ({ node, identity }: WardIdentity) =>
    (action: WardOrder['action'], epoch: number) => ({
      ...{ action, epoch, ward: node, identity: publicPem(identity) },
    })
  const [one, two] = [of(moving), of(ending)]
  return [
    ...[one('prepare', 1), two('prepare', 1)],
    ...[one('prepare', 2), one('prepare', 3), one('retire', 2)],
    ...[one('prepare', 4), one('retire', 3), two('retire', 1)],
  ]
}

interface Made {
  ward: WardIdentity
  epoch: number
  key: EcPublicJwk
}

/** What a ward's disk that is sealed to this one key says: open, or the code that it heard. */
async function ask(guardian: TestGuardian, { ward, epoch, key }: Made): Promise<string> {
  const pins = createPins({ extra: [peerPin(ward)] })
  const config = peerConfig(ward, guardian, epoch, key)
  using secret = Secret.copy('the volume passphrase')
  const sealed = await seal(pins, { kind: 'pin', pin: 'peer', config }, secret)
  try {
    using opened = await open(pins, sealed, { timeout: 60_000 })
    return opened.equals(secret) ? 'open' : 'another secret'
  } catch (error) {
    if (isFault(error)) return error.code
    throw error
  }
}

interface Kill {
  guardian: TestGuardian
  wards: readonly WardIdentity[]
  orders: readonly WardOrder[]
  /** What the guardian had told of its orders before it was killed. */
  told: readonly (EcPublicJwk | null)[]
}

/** The keys that the guardian has told of. */
function madeIn({ wards, orders, told }: Kill): Made[] {
  return told.flatMap((key, index) => {
    const { ward: node, epoch } = orders[index] ?? {}
    const ward = wards.find((each) => each.node === node)
    return key === null || ward === undefined || epoch === undefined ? [] : [{ ward, epoch, key }]
  })
}

/** Up to which epoch the first orders retire a ward's keys. */
function retiredBy(orders: readonly WardOrder[], node: string): number {
  const ends = orders.filter(({ action, ward }) => action === 'retire' && ward === node)
  return Math.max(0, ...ends.map(({ epoch }) => epoch))
}

async function requireAnswers(kill: Kill): Promise<void> {
  const { guardian, orders, told } = kill
  const made = madeIn(kill)
  for (const { node } of kill.wards) {
    const own = made.filter(({ ward }) => ward.node === node)
    const over = retiredBy(orders.slice(0, told.length), node)
    // The order that was under way may have been carried out, whole or not at all.
    const perhaps = retiredBy(orders.slice(0, told.length + 1), node)
    const between: string[] = []
    for (const each of own) {
      const answer = await ask(guardian, each)
      if (each.epoch > perhaps) assert.equal(answer, 'open', `epoch ${each.epoch}`)
      else if (each.epoch <= over) assert.equal(answer, 'agent.ward_stale', `epoch ${each.epoch}`)
      else between.push(answer)
    }
    assert.match(between.join(' '), /^(open ?)*$|^(agent\.ward_stale ?)*$/)
  }
}

const contentOf = (directory: string, { ward, epoch }: WardOrder) =>
  readFile(join(directory, 'wards', ward, `${epoch}.jwk`), 'utf8').catch(() => undefined)

/** A new start carries the last order that was told of out once more, and all after it. */
async function goOn({ guardian, wards, orders, told }: Kill): Promise<Kill> {
  const { directory } = guardian
  const guarded = await openGuarded(directory)
  const first = Math.max(0, told.length - 1)
  const after: (EcPublicJwk | null)[] = told.slice(0, first)
  for (const order of orders.slice(first)) {
    const before = await contentOf(directory, order)
    const key = (await carryOut(guarded, order)) ?? null
    const again = (await carryOut(guarded, order)) ?? null
    assert.equal(JSON.stringify(again), JSON.stringify(key), 'a repeated order changes nothing')
    if (order.action === 'prepare' && before !== undefined)
      assert.equal(await contentOf(directory, order), before, 'a key that is there stays')
    after.push(key)
  }
  if (told.length > 0) assert.deepEqual(after[first], told[first], 'the coordinator hears the same')
  return { guardian, wards, orders, told: after }
}

/** No key is left of what is over, and none is made again. */
async function requireDestroyed({ guardian, wards, orders, told }: Kill): Promise<void> {
  for (const { node, identity } of wards) {
    const over = retiredBy(orders.slice(0, told.length), node)
    const names: string[] = await readdir(join(guardian.directory, 'wards', node)).catch(() => [])
    for (let epoch = 1; epoch <= over; epoch += 1) {
      assert.ok(!names.includes(`${epoch}.jwk`), names.join())
      const again = guardian.keys.prepare(node, publicPem(identity), epoch)
      await assert.rejects(again, { code: 'agent.ward_stale' })
    }
  }
}

test('a guardian that is killed anywhere in making and destroying keys goes on with them', async (t) => {
  await using fleet = await peerFleet()
  const wards = [await fleet.node(), await fleet.node()] as const
  const orders = ordersFor(...wards)
  const file = join(fleet.path, 'orders.json')
  await writeFile(file, JSON.stringify(orders))
  let killAt = 1
  for (; killAt <= mostEffects; killAt += 1) {
    const guardian = await fleet.guardian()
    await guardian.stop()
    const { killed, text } = await runKilled(
      'ward-keys-child.ts',
      [guardian.directory, file],
      killAt,
    )
    const lines = text.split('\n').slice(0, -1)
    const kill = { guardian, wards, orders, told: lines.map((line) => JSON.parse(line)) }
    try {
      await guardian.start()
      await requireAnswers(kill)
      await requireDestroyed(kill)
      await guardian.stop()
      const end = await goOn(kill)
      await guardian.start()
      assert.equal(end.told.length, orders.length)
      await requireAnswers(end)
      await requireDestroyed(end)
      assert.deepEqual(await guardian.keys.wards(), [wards[0].node])
      assert.deepEqual(await guardian.keys.epochs(wards[0].node), [4])
      await guardian.stop()
      const events = await verifyReleaseLog(join(guardian.directory, 'releases.log'))
      for (const { action, ward, epoch } of orders) {
        const event = action === 'prepare' ? 'prepared' : 'retired'
        const noted = events.some(
          (each) => each.event === event && each.ward === ward && each.epoch === epoch,
        )
        assert.ok(noted, `${event} ${epoch} is in the log`)
      }
    } catch (cause) {
      throw new Error(`killed at effect ${killAt}`, { cause })
    }
    if (!killed) break
  }
  t.diagnostic(`${killAt - 1} kills`)
  assert.ok(killAt > 15 && killAt <= mostEffects, `${killAt} effects`)
})
