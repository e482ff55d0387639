import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import { array, asyncProperty, assert as check, integer, string } from 'fast-check'
import { segmentsOf } from './backup.ts'
import { chunked } from './backup-fixture.ts'
import { type BackupHead, headLine, rowLine, signedText } from './backup-format.ts'
import { readBundle } from './backup-read.ts'
import { newId } from './ways.ts'

// Segments as such, of rows that are nobody's: whatever is cut off, exchanged, repeated, left out or
// taken from another bundle of the same identity is refused.

const identity = generateKeyPairSync('ec', { namedCurve: 'P-256' })

/** A bundle of these documents, in its lines: the head, and one text for every segment. */
async function made(bodies: readonly string[], size: number): Promise<string[]> {
  const bundle = newId()
  const head: BackupHead = {
    holdfast: 'coordinator-backup',
    version: 2,
    bundle,
    ...{ cluster: '', generation: 0, at: 0, rows: { documents: bodies.length } },
    identity: identity.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }
  const parts = [headLine(head, sign('sha256', signedText(head), identity.privateKey))]
  const lines = bodies.map((body, name) => rowLine('documents', { name, body }))
  for await (const part of segmentsOf(lines, bundle, identity.privateKey, size)) parts.push(part)
  return parts
}

/** The documents that come out, and whether what came through is what went in. */
async function read(bundle: string, chunk = 65_536): Promise<string[]> {
  const bodies: string[] = []
  const passed: Buffer[] = []
  const reader = {
    head: () => undefined,
    row: (_table: string, row: { body?: unknown }) => void bodies.push(String(row.body)),
  }
  for await (const part of readBundle(chunked(bundle, chunk)(), reader)) passed.push(part)
  assert.equal(Buffer.concat(passed).toString(), bundle)
  return bodies
}

async function codeOf(bundle: string): Promise<string | undefined> {
  try {
    await read(bundle)
    return undefined
  } catch (error) {
    if (!isFault(error)) throw error
    return error.code
  }
}

const incomplete = 'coordinator.backup_incomplete'
const mixed = 'coordinator.backup_mixed'
const someBodies = array(string({ unit: 'binary', maxLength: 60 }), { maxLength: 30 })

test('what is written comes back, whatever the sizes of rows, segments and chunks', async () => {
  await check(
    asyncProperty(
      someBodies,
      integer({ min: 1, max: 400 }),
      integer({ min: 1, max: 300 }),
      async (bodies, size, chunk) => {
        const wellFormed = bodies.map((body) => body.toWellFormed())
        const parts = await made(wellFormed, size)
        assert.deepEqual(await read(parts.join(''), chunk), wellFormed)
        // Every segment but the last is full, and not by more than its last row.
        for (const part of parts.slice(1, -1)) {
          const rows = part.split('\n').slice(0, -2)
          assert.ok(rows.join('\n').length + 1 >= size)
          assert.ok(rows.slice(0, -1).join('\n').length < size)
        }
      },
    ),
    { numRuns: 150 },
  )
})

test('cut off anywhere, it is refused as incomplete', async () => {
  const whole = (await made(['a', 'b', 'c', 'd'], 40)).join('')
  assert.equal(await codeOf(whole), undefined)
  const head = whole.indexOf('\n') + 1
  for (let at = 0; at < whole.length; at += at < head ? 37 : 1)
    assert.equal(await codeOf(whole.slice(0, at)), incomplete, `cut at ${at} of ${whole.length}`)
})

test('segments that are exchanged, repeated, left out, added or of another bundle are refused', async () => {
  await check(
    asyncProperty(
      integer({ min: 2, max: 6 }),
      integer({ min: 0, max: 5 }),
      integer({ min: 0, max: 5 }),
      async (count, from, to) => {
        const bodies = Array.from({ length: count }, (_, at) => `body ${at}`)
        const [head = '', ...segments] = await made(bodies, 1)
        const [, ...others] = await made(bodies, 1)
        assert.equal(segments.length, count)
        const [one, two] = [from % count, to % count]
        const at = (index: number) => segments[index] ?? ''
        const joined = (parts: readonly string[]) => [head, ...parts].join('')
        const without = segments.toSpliced(one, 1)
        assert.equal(await codeOf(joined(without)), one === count - 1 ? incomplete : mixed)
        assert.equal(await codeOf(joined(segments.toSpliced(two, 0, at(one)))), mixed)
        assert.equal(await codeOf(joined(segments.with(one, others[one] ?? ''))), mixed)
        assert.equal(await codeOf(joined([...segments, ...others])), mixed)
        if (one !== two)
          assert.equal(await codeOf(joined(segments.with(one, at(two)).with(two, at(one)))), mixed)
      },
    ),
    { numRuns: 100 },
  )
})

test('a segment whose rows, end or signature were changed is refused before a row of it is read', async () => {
  const [head = '', first = '', ...rest] = await made(['first', 'second', 'third'], 1)
  const changes = [
    first.replace('"first"', '"First"'),
    first.replace('"last":false', '"last":true'),
    first.replace(/"signature":"..../, '"signature":"AAAA'),
    first.slice(0, first.indexOf('\n') + 1).repeat(2) + first.slice(first.indexOf('\n') + 1),
  ]
  for (const changed of changes) {
    assert.notEqual(changed, first)
    const rows: string[] = []
    const row = (table: string) => void rows.push(table)
    const reader = { head: () => undefined, row }
    const bytes = chunked([head, changed, ...rest].join(''))()
    await assert.rejects(
      async () => {
        for await (const _part of readBundle(bytes, reader));
      },
      { code: 'coordinator.backup_damaged' },
    )
    assert.deepEqual(rows, [])
  }
})
