import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { format, inspect } from 'node:util'
import { faults, isFault, messageOf } from './fault.ts'
import { createLog } from './log.ts'
import { Secret } from './secret.ts'

const text = 'correct horse battery staple'

describe('Secret', () => {
  test('prints as [secret] however it is printed', () => {
    using secret = Secret.copy(text)
    const lines: string[] = []
    const log = createLog('test', 'info', { write: (line: string) => void lines.push(line) })
    log.info({ secret, deep: { secret } }, 'with %s', secret)
    const printed = [
      String(secret),
      `${secret}`,
      JSON.stringify({ secret, list: [secret] }),
      inspect(secret, { showHidden: true, depth: 9 }),
      inspect({ secret }, { showHidden: true }),
      format('%s %o %j', secret, secret, secret),
      Object.keys(secret).join(),
      new Error(`failed with ${secret}`).message,
      ...lines,
    ].join('\n')
    assert.equal(printed.includes(text), false)
    assert.equal(printed.includes(Buffer.from(text).toString('hex')), false)
    assert.ok(printed.includes('[secret]'))
    assert.equal(lines.length, 1)
  })

  test('is zeros after it is disposed of, and refuses to be used', () => {
    const bytes = Buffer.from(text)
    {
      using secret = Secret.take(bytes)
      assert.equal(secret.length, text.length)
    }
    assert.deepEqual(bytes, Buffer.alloc(text.length))
    const secret = Secret.copy(text)
    secret[Symbol.dispose]()
    secret[Symbol.dispose]()
    assert.throws(() => secret.reveal(), { code: 'base.secret_disposed' })
    assert.throws(() => secret.length, { code: 'base.secret_disposed' })
  })

  test('copies are independent, equality is by content', () => {
    const bytes = Buffer.from(text)
    using copy = Secret.copy(bytes)
    using other = copy.clone()
    bytes.fill(0)
    assert.equal(copy.reveal().toString(), text)
    assert.ok(copy.equals(other))
    copy[Symbol.dispose]()
    assert.equal(other.reveal().toString(), text)
    using longer = Secret.copy(`${text}!`)
    assert.equal(other.equals(longer), false)
    using random = Secret.random(32)
    using random2 = Secret.random(32)
    assert.equal(random.equals(random2), false)
  })
})

describe('Fault', () => {
  const make = faults({ 'part.went_wrong': 'unavailable' })

  test('carries code, kind, hint and details, and its cause stays out of JSON', () => {
    const fault = make('part.went_wrong', 'it went wrong', {
      hint: 'try again',
      details: { at: 7 },
      cause: new Error('inner'),
    })
    assert.deepEqual(JSON.parse(JSON.stringify(fault)), {
      code: 'part.went_wrong',
      kind: 'unavailable',
      message: 'it went wrong',
      hint: 'try again',
      details: { at: 7 },
    })
    assert.ok(isFault(fault) && isFault(fault, 'part.went_wrong') && !isFault(fault, 'part.other'))
    assert.equal(isFault(new Error('x')), false)
    assert.equal(messageOf(fault), 'it went wrong')
    assert.equal(messageOf('text'), 'text')
    assert.deepEqual(JSON.parse(JSON.stringify(make('part.went_wrong', 'bare'))), {
      code: 'part.went_wrong',
      kind: 'unavailable',
      message: 'bare',
    })
  })
})
