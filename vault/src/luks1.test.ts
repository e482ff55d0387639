import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFile, mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault, run } from '@holdfast/base'
import fc from 'fast-check'
import { readMetadata } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { conversionSteps, crc32c, luks1Fault, parseLuks1, readLuks1 } from './luks1.ts'

// One real LUKS1 volume bound twice by real clevis (the pin `null` needs no server) is made once;
// the tests read it or copies of it.

const gap = 2068480
let folder = ''
let image = ''

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-luks1-'))
  image = join(folder, 'volume.img')
  await writeFile(image, '')
  await truncate(image, 16 * 1024 * 1024)
  const format = ['luksFormat', '-q', '--type', 'luks1', '--pbkdf-force-iterations', '1000']
  await run('cryptsetup', [...format, image, '-'], { input: 'first way in' })
  for (const slot of ['3', '5']) {
    const bind = ['luks', 'bind', '-y', '-f', '-k', '-', '-d', image, '-s', slot, 'null', '{}']
    await run('clevis', bind, { input: 'first way in' })
  }
})

after(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function copy(name: string): Promise<string> {
  const path = join(folder, name)
  await copyFile(image, path)
  return path
}

async function digest(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}

test('crc32c answers the check value of RFC 3720 B.4', () => {
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
})

test('lists the bindings real clevis wrote, and luksmeta agrees on every byte', async () => {
  const before = await digest(image)
  const volume = await readLuks1(image)
  const uuid = await run('cryptsetup', ['luksUUID', image])
  assert.equal(volume.uuid, uuid.stdout.toString().trim())
  assert.deepEqual(volume.keyslots, [0, 3, 5])
  assert.deepEqual(
    volume.bindings.map(({ keyslot, keyslotActive, fault }) => [keyslot, keyslotActive, fault]),
    [
      [3, true, undefined],
      [5, true, undefined],
    ],
  )
  for (const { keyslot, jwe } of volume.bindings) {
    const loaded = await run('luksmeta', ['load', '-d', image, '-s', `${keyslot}`])
    assert.equal(jwe, loaded.stdout.toString().trim())
    const opened = await run('clevis', ['decrypt'], { input: jwe ?? '' })
    const args = ['open', '--test-passphrase', '--key-slot', `${keyslot}`, '--key-file', '-', image]
    await run('cryptsetup', args, { input: opened.stdout })
  }
  assert.equal(await digest(image), before)
})

test('an entry of another program is named and not read', async () => {
  const path = await copy('foreign.img')
  const other = 'd1a7d4dc-1111-4222-8333-0123456789ab'
  await run('luksmeta', ['save', '-d', path, '-s', '7', '-u', other], { input: 'not ours' })
  const volume = await readLuks1(path)
  assert.deepEqual(volume.foreign, [{ keyslot: 7, uuid: other }])
  assert.equal(volume.bindings.length, 2)
})

test('a volume without a luksmeta table has no bindings and is no fault', async () => {
  const path = await copy('plain.img')
  await run('luksmeta', ['nuke', '-f', '-d', path])
  const volume = await readLuks1(path)
  assert.equal(volume.metadata, 'absent')
  assert.deepEqual(volume.bindings, [])
})

test('a keyslot killed behind clevis leaves a binding marked as an orphan', async () => {
  const path = await copy('orphan.img')
  const kill = ['luksKillSlot', '-q', '--key-file', '-', path, '5']
  await run('cryptsetup', kill, { input: 'first way in' })
  const volume = await readLuks1(path)
  assert.deepEqual(
    volume.bindings.map(({ keyslot, keyslotActive }) => [keyslot, keyslotActive]),
    [
      [3, true],
      [5, false],
    ],
  )
})

test('the advised commands convert the volume and keep every binding', async () => {
  const path = await copy("it's converted.img")
  const volume = await readLuks1(path)
  const fault = luks1Fault(volume, path)
  assert.equal(fault.code, 'vault.luks1')
  assert.match(fault.hint ?? '', /cryptsetup convert --type luks2/)
  for (const { command, input } of conversionSteps(volume, path)) {
    await run(
      'sh',
      [
        '-c',
        command
          .replace('/dev/shm/', `${folder}/`)
          .replace('cryptsetup convert', 'cryptsetup -q convert'),
      ],
      {
        input: input ?? '',
      },
    )
  }
  await run('cryptsetup', ['isLuks', '--type', 'luks2', path])
  for (const slot of ['3', '5']) {
    const pass = await run('clevis', ['luks', 'pass', '-d', path, '-s', slot])
    const args = ['open', '--test-passphrase', '--key-slot', slot, '--key-file', '-', path]
    await run('cryptsetup', args, { input: pass.stdout })
  }
})

test('whatever is asked of a LUKS1 volume is answered with its bindings and the way to LUKS2', async () => {
  await assert.rejects(readMetadata({ device: image }), (error) => {
    assert.ok(isFault(error, 'vault.luks1'))
    assert.match(error.hint ?? '', /luksmeta nuke .* && cryptsetup convert --type luks2 /)
    assert.deepEqual(error.details?.bindings, [
      { keyslot: 3, keyslotActive: true },
      { keyslot: 5, keyslotActive: true },
    ])
    return true
  })
})

test('LUKS2, an empty file and a missing one are told apart', async () => {
  const luks2 = join(folder, 'luks2.img')
  await writeFile(luks2, '')
  await truncate(luks2, 32 * 1024 * 1024)
  const format = ['luksFormat', '-q', '--type', 'luks2', '--pbkdf', 'pbkdf2']
  await run('cryptsetup', [...format, '--pbkdf-force-iterations', '1000', luks2, '-'], {
    input: 'x',
  })
  await assert.rejects(readLuks1(luks2), { code: 'vault.not_luks' })
  const empty = join(folder, 'empty.img')
  await writeFile(empty, '')
  await assert.rejects(readLuks1(empty), { code: 'vault.not_luks' })
  await assert.rejects(readLuks1(join(folder, 'none')), { code: 'vault.device_absent' })
})

test('any flipped bit of the table or of a binding is noticed, and only there', async () => {
  const bytes = await start()
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 272 * 8 - 1 }), (bit) => {
      const mutated = flip(bytes, gap * 8 + bit)
      assert.throws(() => parseLuks1(mutated, 'v'), { code: 'vault.luks1_metadata_damaged' })
    }),
    { numRuns: 500 },
  )
  const { offset, length } = { offset: bytes.readUInt32BE(gap + 16 + 96 + 16), length: 200 }
  fc.assert(
    fc.property(fc.integer({ min: 0, max: length * 8 - 1 }), (bit) => {
      const { bindings } = parseLuks1(flip(bytes, (gap + offset) * 8 + bit), 'v')
      assert.equal(bindings[0]?.fault?.code, 'vault.luks1_metadata_damaged')
      assert.equal(bindings[0]?.jwe, undefined)
      assert.equal(bindings[1]?.fault, undefined)
      assert.notEqual(bindings[1]?.jwe, undefined)
    }),
    { numRuns: 300 },
  )
})

test('hostile headers, even with right checksums, end in a volume or a fault of this part', async () => {
  const bytes = await start()
  const edit = fc.record({ at: fc.nat({ max: 591 }), value: fc.nat({ max: 255 }) })
  const entry = fc.record({
    slot: fc.nat({ max: 7 }),
    offset: fc.nat({ max: 0xffffffff }),
    length: fc.nat({ max: 0xffffffff }),
  })
  const arbitrary = fc.tuple(fc.array(edit, { maxLength: 6 }), entry, fc.nat({ max: bytes.length }))
  fc.assert(
    fc.property(arbitrary, ([edits, { slot, offset, length }, cut]) => {
      const mutated = Buffer.from(bytes)
      for (const { at, value } of edits) mutated[at] = value
      const at = gap + 16 + slot * 32
      bytes.copy(mutated, at, gap + 16 + 96, gap + 16 + 112)
      mutated.writeUInt32BE(offset, at + 16)
      mutated.writeUInt32BE(length, at + 20)
      mutated.writeUInt32BE(0, gap + 12)
      mutated.writeUInt32BE(crc32c(mutated.subarray(gap, gap + 272)), gap + 12)
      for (const input of [mutated, mutated.subarray(0, cut)]) {
        try {
          const volume = parseLuks1(input, 'v')
          assert.ok(
            volume.bindings.every(
              ({ jwe, fault }) => (jwe === undefined) !== (fault === undefined),
            ),
          )
        } catch (error) {
          assert.ok(isFault(error) && error.code in vaultFault.codes, String(error))
        }
      }
    }),
    { numRuns: 400 },
  )
})

/** The bytes a reader needs: header, key material and gap. */
async function start(): Promise<Buffer> {
  await using file = await open(image, 'r')
  const bytes = Buffer.alloc(2 * 1024 * 1024)
  await file.read(bytes, 0, bytes.length, 0)
  return bytes
}

function flip(bytes: Buffer, bit: number): Buffer {
  const mutated = Buffer.from(bytes)
  mutated[bit >> 3] = (mutated[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  return mutated
}
