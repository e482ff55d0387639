import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { isFault, type JsonObject, Secret } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import fc from 'fast-check'
import { bindVault } from './bind.ts'
import { exportToken, importToken, readMetadata, type VolumeRef } from './cryptsetup.ts'
import { takeInventory } from './inventory.ts'
import { type Bench, digest, makeBench, passphrase, type Tang, tangPolicy } from './lab.ts'
import { listVault } from './list.ts'
import { parseMetadata } from './metadata.ts'
import { rehearseVault } from './rehearse.ts'
import { reportVault } from './report.ts'
import { readToken } from './token.ts'
import { unlockVault } from './unlock.ts'

const anyText = fc.oneof(
  fc.string(),
  fc.string({ maxLength: 4 }).map((text) => text.repeat(500)),
)
const anyJwe = fc.oneof(
  fc.jsonValue(),
  fc.record(
    {
      protected: fc.oneof(anyText, fc.jsonValue().map(encoded), headers().map(encoded)),
      encrypted_key: anyText,
      iv: fc.oneof(anyText, fc.constant('AAAAAAAAAAAAAAAA')),
      ciphertext: anyText,
      tag: fc.oneof(anyText, fc.constant('AAAAAAAAAAAAAAAAAAAAAA')),
      recipients: fc.array(fc.record({ encrypted_key: anyText })),
    },
    { requiredKeys: [] },
  ),
  fc.record({
    protected: headers().map(encoded),
    iv: fc.constant('AAAAAAAAAAAAAAAA'),
    ciphertext: fc.constantFrom('', 'AAAA'),
    tag: fc.constant('AAAAAAAAAAAAAAAAAAAAAA'),
  }),
)
const anyToken: fc.Arbitrary<JsonObject> = fc
  .record(
    {
      type: fc.constantFrom('clevis', 'holdfast', 'systemd-tpm2'),
      jwe: anyJwe,
      holdfast: fc.oneof(
        fc.jsonValue(),
        fc.record(
          { v: fc.constantFrom(1, 2, '1'), purpose: anyText, generation: fc.jsonValue() },
          { requiredKeys: ['v'] },
        ),
      ),
    },
    { requiredKeys: ['type'] },
  )
  .map((token) => ({ ...token, keyslots: ['1'] }))

function headers() {
  const pin = fc.constantFrom('tang', 'sss', 'null', 'tpm2', 'person', 'passphrase', 'unheard-of')
  const own = fc.oneof(
    fc.jsonValue(),
    fc.record(
      {
        url: fc.oneof(fc.string(), fc.jsonValue()),
        adv: fc.oneof(fc.jsonValue(), fc.record({ keys: fc.array(fc.jsonValue()) })),
        t: fc.jsonValue(),
        p: fc.oneof(fc.string(), fc.constant('A'.repeat(43))),
        jwe: fc.oneof(fc.jsonValue(), fc.array(fc.string())),
        jwk: fc.jsonValue(),
        name: fc.jsonValue(),
      },
      { requiredKeys: [] },
    ),
  )
  return fc.tuple(pin, own, fc.jsonValue()).map(([name, member, epk]) => ({
    alg: 'dir',
    enc: 'A256GCM',
    kid: 'x',
    epk,
    clevis: { pin: name, [name]: member },
  }))
}

function encoded(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

describe('hostile headers', () => {
  let bench: Bench
  let server: Tang
  let volume: VolumeRef
  let metadataText = ''
  before(async () => {
    bench = await makeBench()
    server = await bench.tang({ curve: 'P-256' })
    volume = await bench.volume({ name: 'hostile.img' })
    using secret = Secret.copy(passphrase)
    await bindVault(bench.deps, volume, tangPolicy([server]), { passphrase: secret })
    metadataText = JSON.stringify((await readMetadata(volume)).json)
  })
  after(async () => await bench[Symbol.asyncDispose]())

  it('any token is understood or reported, never thrown on', () => {
    const pins = createPins()
    const metadata = parseMetadata(metadataText, 'model')
    const kinds = new Set<string>()
    fc.assert(
      fc.property(anyToken, (json) => {
        const raw = { id: 7, type: String(json.type), keyslots: [1], json }
        kinds.add(readToken(raw).kind)
        const tokens = new Map([[7, raw]])
        const { slots, orphans } = takeInventory({ ...metadata, tokens }, pins)
        const slot = slots.find(({ keyslot }) => keyslot === 1)
        assert.ok(slot !== undefined)
        const readable = slot.inspection !== undefined || slot.purpose === 'owner'
        const explained =
          slot.problem !== undefined || slot.owner === 'foreign' || orphans.length > 0
        assert.ok(readable || explained)
      }),
      { numRuns: 3000 },
    )
    assert.ok(kinds.has('malformed') && kinds.has('binding') && kinds.has('foreign'))
  })

  it('any metadata is parsed or refused with its code', () => {
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc
        .tuple(fc.nat(metadataText.length - 1), fc.string({ maxLength: 3 }))
        .map(
          ([at, change]) => `${metadataText.slice(0, at)}${change}${metadataText.slice(at + 1)}`,
        ),
      fc.nat(metadataText.length).map((length) => metadataText.slice(0, length)),
    )
    fc.assert(
      fc.property(text, (candidate) => {
        try {
          const metadata = parseMetadata(candidate, 'model')
          assert.ok(metadata.jsonUsed > 0)
          takeInventory(metadata, createPins())
        } catch (error) {
          assert.ok(isFault(error, 'vault.metadata_malformed'), String(error))
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('a bad token beside a good one stops nothing and changes nothing', async () => {
    const good = await exportToken(volume, 0)
    const { protected: head, ...rest } = good.jwe as Record<string, string> // our own token
    const bad: JsonObject[] = [
      { type: 'clevis', keyslots: ['0'], jwe: null },
      { type: 'clevis', keyslots: ['0'], jwe: { ...rest, protected: `${head}AAAA` } },
      { type: 'clevis', keyslots: ['0'], jwe: { ...rest, protected: encoded({ enc: 'none' }) } },
      { type: 'clevis', keyslots: ['0'], jwe: { ...rest, protected: 'A'.repeat(20_000) } },
      { type: 'holdfast', keyslots: ['0'] },
      { type: 'holdfast', keyslots: ['0'], holdfast: { v: 99, purpose: 'owner' } },
      { ...good, keyslots: ['0'], holdfast: { v: 1, purpose: 'owner', generation: 1 } },
      { ...good, keyslots: ['1'] },
    ]
    for (const token of bad) {
      await importToken(volume, 3, token, true).catch(() => importToken(volume, 3, token))
      const before = await digest(volume.device)
      const { slots } = await listVault(bench.deps, volume)
      assert.equal(slots[1]?.token, 0)
      assert.equal((await unlockVault(bench.deps, volume)).keyslot, 1)
      const { ways } = await rehearseVault(bench.deps, volume)
      assert.equal(ways.find(({ keyslot }) => keyslot === 1)?.proof.state, 'proven')
      assert.equal((await reportVault(bench.deps, volume)).at(-1)?.keyslot, 1)
      assert.equal(await digest(volume.device), before)
    }
  })
})
