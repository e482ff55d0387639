import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFile, readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault, run, Secret } from '@holdfast/base'
import { parsePolicy } from '@holdfast/seal'
import fc from 'fast-check'
import { erase, killSlot, removeToken, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { readHeaderImage, writeHeaderImage } from './header.ts'
import { type Bench, bind, emptyFile, fileDigest, makeBench, passphrase } from './header-fixture.ts'
import {
  metadataSizes,
  parseHeaderImage,
  readCopy,
  survivingCopies,
  withoutFreeSpace,
} from './header-format.ts'
import { overwrite, readRegion } from './header-io.ts'
import { digestOf, pack, unpack } from './header-pack.ts'

let bench: Bench
let volume: VolumeRef

before(async () => {
  bench = await makeBench()
  volume = await bench.volume('volume')
  const { pins } = bench.deps()
  await bind(volume, pins, bench.holders.policy, 1, 'recovery')
  await bind(volume, pins, parsePolicy('null', {}), 2, 'automatic')
})

after(async () => {
  await bench[Symbol.asyncDispose]()
})

async function copyOf(name: string): Promise<VolumeRef> {
  const device = join(bench.folder, `${name}.img`)
  await copyFile(volume.device, device)
  return { device }
}

test('reads what cryptsetup says about the same header', async () => {
  using header = await readHeaderImage(volume)
  const uuid = await run('cryptsetup', ['luksUUID', volume.device])
  assert.equal(header.facts.uuid, uuid.stdout.toString().trim())
  const dump = (await run('cryptsetup', ['luksDump', volume.device])).stdout.toString()
  assert.match(dump, new RegExp(`Epoch:\\s+${header.facts.seqid}\n`))
  assert.match(dump, new RegExp(`offset: ${header.facts.dataOffset} \\[bytes\\]`))
  assert.deepEqual(
    header.facts.keyslots.map((identity) => identity.split(':')[0]),
    ['0', '1', '2'],
  )
  const backup = join(bench.folder, 'cryptsetup.backup')
  await run('cryptsetup', ['luksHeaderBackup', volume.device, '--header-backup-file', backup])
  const theirs = await readFile(backup)
  assert.equal(theirs.length, header.facts.length)
  assert.ok(withoutFreeSpace(theirs, header.facts).equals(header.image.reveal()))
})

test('the digest changes with a keyslot and its identity with its salt', async () => {
  const changed = await copyOf('changed')
  using before = await readHeaderImage(changed)
  await killSlot(changed, 2)
  await removeToken(changed, 2)
  await bind(changed, bench.deps().pins, parsePolicy('null', {}), 2, 'automatic')
  using after = await readHeaderImage(changed)
  assert.notEqual(after.facts.digest, before.facts.digest)
  assert.equal(after.facts.keyslots.length, 3)
  assert.notEqual(after.facts.keyslots[2], before.facts.keyslots[2])
  assert.equal(after.facts.keyslots[1], before.facts.keyslots[1])
  assert.equal(after.facts.volumeKey, before.facts.volumeKey)
  assert.ok(after.facts.seqid > before.facts.seqid)
})

test('the free space of the image is zero though the device still holds a dead keyslot there', async () => {
  const killed = await copyOf('killed')
  const area = 131_072 + 3 * 258_048
  await overwrite(killed.device, area, 4096, (_, length) => Buffer.alloc(length, 0x5a))
  using header = await readHeaderImage(killed)
  assert.ok(
    header.image
      .reveal()
      .subarray(area, area + 4096)
      .every((byte) => byte === 0),
  )
  using restored = await readHeaderImage(volume)
  assert.ok(header.image.equals(restored.image))
})

test('writes a header onto zeros and onto noise, and every way in opens again', async () => {
  using header = await readHeaderImage(volume)
  for (const [name, byte] of [
    ['zeros', 0],
    ['noise', 0xa7],
  ] as const) {
    const target = await copyOf(name)
    const data = await digestAfter(target.device, header.facts.dataOffset)
    await overwrite(target.device, 0, header.facts.length, (_, n) => Buffer.alloc(n, byte))
    await assert.rejects(readHeaderImage(target), { code: 'vault.not_luks' })
    await writeHeaderImage(target, header.image, header.facts)
    using secret = passphrase()
    assert.equal(await testPassphrase(target, secret, 0), true)
    using again = await readHeaderImage(target)
    assert.deepEqual(again.facts, header.facts)
    assert.equal(await digestAfter(target.device, header.facts.dataOffset), data)
  }
})

test('a detached header is read and written in its own file', async () => {
  const detached = await bench.volume('apart', { detached: true })
  using header = await readHeaderImage(detached)
  assert.equal(header.facts.dataOffset, 0)
  const data = await fileDigest(detached.device)
  await overwrite(detached.header ?? '', 0, header.facts.length, (_, n) => Buffer.alloc(n, 1))
  await writeHeaderImage(detached, header.image, header.facts)
  using secret = passphrase()
  assert.equal(await testPassphrase(detached, secret, 0), true)
  assert.equal(await fileDigest(detached.device), data)
})

test('sizes are checked before anything is written', async () => {
  using header = await readHeaderImage(volume)
  for (const size of [4096, 8 * 1024 * 1024, header.facts.dataOffset]) {
    const device = join(bench.folder, `small-${size}.img`)
    await emptyFile(device, size)
    const before = await fileDigest(device)
    await assert.rejects(writeHeaderImage({ device }, header.image, header.facts), {
      code: 'vault.header_size_mismatch',
    })
    assert.equal(await fileDigest(device), before)
  }
})

test('when cryptsetup refuses the image, the device is byte-identical to before', async () => {
  using header = await readHeaderImage(volume)
  const target = await copyOf('refused')
  const before = await fileDigest(target.device)
  const forged = Buffer.from(header.image.reveal())
  forged.fill(0, 0, 8192)
  forged.fill(0, 65_536, 65_536 + 8192)
  using image = Secret.take(forged)
  await assert.rejects(writeHeaderImage(target, image, header.facts), {
    code: 'vault.cryptsetup_failed',
  })
  assert.equal(await fileDigest(target.device), before)
})

test('one torn copy is repaired by cryptsetup, two are a fault', async () => {
  const torn = await copyOf('torn')
  using header = await readHeaderImage(torn)
  await overwrite(torn.device, 512, 64, (_, n) => Buffer.alloc(n, 7))
  using repaired = await readHeaderImage(torn)
  assert.deepEqual(repaired.facts.keyslots, header.facts.keyslots)
  await overwrite(torn.device, 0, 4096, (_, n) => Buffer.alloc(n, 7))
  assert.deepEqual(
    survivingCopies(await readRegion(torn.device, 1_000_000)).map(({ uuid }) => uuid),
    [header.facts.uuid],
  )
  await overwrite(torn.device, 65_536, 4096, (_, n) => Buffer.alloc(n, 7))
  await assert.rejects(readHeaderImage(torn), { code: 'vault.not_luks' })
})

test('a header whose keyslots were erased is read and keeps its volume key’s mark', async () => {
  const erased = await copyOf('erased')
  using before = await readHeaderImage(erased)
  await erase(erased)
  using header = await readHeaderImage(erased)
  assert.deepEqual(header.facts.keyslots, [])
  assert.equal(header.facts.volumeKey, before.facts.volumeKey)
})

test('packing keeps the image and leaves free space out', async () => {
  using header = await readHeaderImage(volume)
  using packed = pack(header.image, header.facts, { note: 'kept' })
  assert.ok(packed.length < 3 * 258_048 + 60_000, `${packed.length}`)
  using unpacked = unpack(packed, 'test')
  assert.ok(unpacked.image.equals(header.image))
  assert.deepEqual(unpacked.facts, header.facts)
  assert.equal(unpacked.description.note, 'kept')
})

test('mutated images and packed headers end in the same header or in a fault', async () => {
  using header = await readHeaderImage(volume)
  using packed = pack(header.image, header.facts, {})
  const image = header.image.reveal()
  const positions = fc.array(fc.nat({ max: 140_000 }), { minLength: 1, maxLength: 4 })
  const start = fc.array(fc.nat({ max: 3000 }), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(positions, start, fc.nat({ max: 255 }), (inImage, inPack, value) => {
      const mutated = Buffer.from(image.subarray(0, 140_000))
      for (const at of inImage) mutated[at] = value
      expectFault(() => {
        const found = parseHeaderImage(mutated, 'v')
        assert.equal(found.digest, header.facts.digest)
      })
      const bytes = Buffer.from(packed.reveal())
      for (const at of inPack) bytes[at] = value
      const cut = bytes.subarray(0, bytes.length - (inPack[0] ?? 0))
      for (const input of [bytes, cut]) {
        expectFault(() => {
          using found = unpack(Secret.copy(input), 'v')
          assert.equal(digestOf(found.image.reveal()), digestOf(image))
        })
      }
    }),
    { numRuns: 60 },
  )
})

test('a header with right checksums and hostile numbers is refused', async () => {
  using header = await readHeaderImage(volume)
  const image = header.image.reveal()
  const hostile = fc.record({
    size: fc.oneof(fc.constantFrom(...metadataSizes), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    area: fc.oneof(
      fc.constantFrom('"offset":"0"', '"offset":"4096"', '"offset":"131071"'),
      fc.constantFrom(2 ** 30, 2 ** 53, 2 ** 60).map((value) => `"offset":"${value}"`),
      fc.constantFrom(2 ** 30, 2 ** 53, 2 ** 60).map((value) => `"size":"${value}"`),
    ),
  })
  fc.assert(
    fc.property(hostile, ({ size, area }) => {
      const sized = Buffer.from(image)
      sized.writeBigUInt64BE(BigInt(size), 8)
      if (Number(size) !== 65_536) {
        assert.throws(() => parseHeaderImage(signed(sized, [0]), 'v'), isFault)
      }
      const [name = ''] = area.split(':')
      const moved = withJson(image, (json) => json.replace(new RegExp(`${name}:"\\d+"`), area))
      assert.throws(() => parseHeaderImage(moved, 'v'), isFault)
    }),
    { numRuns: 40 },
  )
})

/** The image with both JSON areas changed and both checksums right. */
function withJson(image: Buffer, change: (json: string) => string): Buffer {
  const changed = Buffer.from(image)
  const json = change(readCopy(image, 0)?.json ?? '')
  for (const start of [0, 65_536]) {
    changed.fill(0, start + 4096, start + 65_536).write(json, start + 4096)
  }
  return signed(changed, [0, 65_536])
}

function signed(image: Buffer, starts: readonly number[]): Buffer {
  for (const start of starts) {
    const size = Math.min(Number(image.readBigUInt64BE(start + 8)), image.length - start)
    if (size < 512) continue
    const copy = Buffer.from(image.subarray(start, start + size)).fill(0, 448, 512)
    createHash('sha256')
      .update(copy)
      .digest()
      .copy(image, start + 448)
  }
  return image
}

function expectFault(work: () => void): void {
  try {
    work()
  } catch (error) {
    assert.ok(isFault(error), String(error))
    assert.ok(error.code in vaultFault.codes, error.code)
  }
}

async function digestAfter(path: string, offset: number): Promise<string> {
  return digestOf((await readFile(path)).subarray(offset))
}

test('truncated devices are told apart from broken ones', async () => {
  const cut = await copyOf('cut')
  await truncate(cut.device, 100_000)
  await assert.rejects(readHeaderImage(cut), (error) => isFault(error))
})
