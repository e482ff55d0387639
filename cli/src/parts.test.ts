import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import fc from 'fast-check'
import { joinText, splitText } from './parts.ts'

const texts = fc.string({ minLength: 1, maxLength: 3000, unit: 'grapheme' })

test('parts come together in any order, repeated and between other lines', () => {
  fc.assert(
    fc.property(
      texts,
      fc.integer({ min: 20, max: 900 }),
      fc.infiniteStream(fc.nat()),
      (text, length, random) => {
        const parts = splitText(text, length)
        const mixed = [...parts, ...parts]
          .map((part) => ({ part: `QR-Code:${part}`, order: random.next().value }))
          .sort((a, b) => a.order - b.order)
          .flatMap(({ part }) => [part, 'scanned 1 barcode symbol'])
        assert.equal(joinText(mixed.join('\n'), 'the text'), text)
      },
    ),
    { numRuns: 50 },
  )
})

test('a missing part is named, and nothing comes out', () => {
  const parts = splitText('x'.repeat(10) + Math.PI.toString().repeat(3), 12)
  assert.ok(parts.length > 2)
  const fault = thrown(() => joinText(parts.slice(1).join('\n'), 'the request'))
  assert.ok(isFault(fault, 'cli.answer_part_missing'))
  assert.match(fault.message, /^part 1 of \d+ of the request is missing$/)
})

test('parts of two texts are not put together', () => {
  const [a, b] = [splitText('one text', 8), splitText('another text', 8)]
  const fault = thrown(() => joinText([...a.slice(1), ...b].join('\n'), 'it'))
  assert.ok(isFault(fault, 'cli.config_invalid'))
})

test('an altered part is noticed', () => {
  const parts = splitText('a text that is long enough to be split into several parts', 12)
  for (const index of parts.keys()) {
    const altered = parts.map((part, at) => (at === index ? flipped(part) : part))
    const fault = thrown(() => joinText(altered.join('\n'), 'it'))
    assert.ok(isFault(fault, 'cli.config_invalid'), parts[index])
  }
})

test('what holds no part is the text itself', () => {
  assert.equal(joinText(' {"a":1}\n', 'it'), '{"a":1}')
})

function flipped(part: string): string {
  const at = part.lastIndexOf(':') + 1
  const other = part[at] === 'A' ? 'B' : 'A'
  return `${part.slice(0, at)}${other}${part.slice(at + 1)}`
}

function thrown(action: () => unknown): unknown {
  try {
    action()
  } catch (error) {
    return error
  }
  return undefined
}
