import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { isObject } from './json.ts'
import { DurableRecord } from './record.ts'

interface Step {
  step: number
}

function parseStep(value: unknown): Step {
  if (!isObject(value) || typeof value.step !== 'number') throw new TypeError('not a step')
  return { step: value.step }
}

describe('a durable record', () => {
  let folder = ''
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-record-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  test('is absent, then what was written, then absent again', async () => {
    const record = new DurableRecord(join(folder, 'a'), parseStep)
    assert.equal(await record.read(), undefined)
    await record.write({ step: 3 })
    assert.deepEqual(await record.read(), { step: 3 })
    await record.clear()
    assert.equal(await record.read(), undefined)
    await record.clear()
  })

  test('a damaged one is a fault and never "none", and stays as it is', async () => {
    const path = join(folder, 'b')
    const record = new DurableRecord(path, parseStep)
    await record.write({ step: 12_345 })
    const whole = await readFile(path, 'utf8')
    const damaged = fc.oneof(
      fc.nat({ max: whole.length - 3 }).map((length) => whole.slice(0, length)),
      fc.constantFrom('null', '[]', '{"step":"3"}', '{"step":3}}', '\u0000'.repeat(20)),
    )
    await fc.assert(
      fc.asyncProperty(damaged, async (text) => {
        await writeFile(path, text)
        await assert.rejects(record.read(), { code: 'base.record_damaged', kind: 'integrity' })
        assert.equal(await readFile(path, 'utf8'), text)
      }),
      { numRuns: 30 },
    )
  })
})
