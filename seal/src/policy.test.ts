import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault } from '@holdfast/base'
import fc from 'fast-check'
import { formatPolicy, leavesOf, mapPins, type Policy, parsePolicy, threshold } from './policy.ts'

const pinName = fc.oneof(
  fc.constantFrom('tang', 'tpm2', 'null', 'constructor', 'a-b_1'),
  fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/).filter((name) => name !== 'sss'),
)
const config = fc.dictionary(fc.string({ maxLength: 5 }), fc.jsonValue({ maxDepth: 1 }), {
  noNullPrototype: true,
})

/** Policies whose children of one name stand together, which clevis's form preserves. */
const policy = fc.letrec<{ policy: Policy; pin: Policy; tree: Policy }>((tie) => ({
  policy: fc.oneof({ maxDepth: 3 }, tie('pin'), tie('tree')),
  pin: fc.record({ kind: fc.constant('pin' as const), pin: pinName, config }),
  tree: fc
    .tuple(fc.array(tie('policy'), { minLength: 1, maxLength: 4 }), fc.nat())
    .map(([children, t]) => threshold(1 + (t % children.length), gathered(children))),
})).policy

function gathered(children: readonly Policy[]): Policy[] {
  const nameOf = (child: Policy) => (child.kind === 'pin' ? child.pin : 'sss')
  const names = [...new Set(children.map(nameOf))]
  return names.flatMap((name) => children.filter((child) => nameOf(child) === name))
}

function refused(pin: string, value: unknown, reason: RegExp): void {
  assert.throws(
    () => parsePolicy(pin, value),
    (error) => isFault(error, 'seal.policy_invalid') && reason.test(error.message),
  )
}

describe('policies', () => {
  test("survive clevis's form and JSON", () => {
    fc.assert(
      fc.property(policy, (tree) => {
        const form = formatPolicy(tree)
        const text = JSON.stringify(form.config)
        assert.deepEqual(parsePolicy(form.pin, JSON.parse(text)), JSON.parse(JSON.stringify(tree)))
      }),
    )
  })

  test('gathering children loses none of them', () => {
    const pin = (name: string): Policy => ({ kind: 'pin', pin: name, config: {} })
    const mixed = threshold(2, [pin('tang'), pin('null'), pin('tang'), pin('constructor')])
    const { pin: name, config: form } = formatPolicy(mixed)
    const again = parsePolicy(name, form)
    assert.deepEqual(
      leavesOf(again).map((leaf) => leaf.pin),
      ['tang', 'tang', 'null', 'constructor'],
    )
  })

  test('the forms of clevis: one configuration or a list, t of 1 by default', () => {
    const tree = parsePolicy('sss', { pins: { tang: [{ url: 'a' }, { url: 'b' }], tpm2: {} } })
    assert.ok(tree.kind === 'threshold')
    assert.equal(tree.threshold, 1)
    assert.equal(leavesOf(tree).length, 3)
    const changed = mapPins(tree, (pin) => ({ ...pin, config: { seen: true } }))
    assert.ok(leavesOf(changed).every((leaf) => leaf.config.seen === true))
  })

  test('impossible ones are refused, each for its reason', () => {
    const nul = { null: {} }
    for (const t of [0, -1, 2, 1.5, '1', null, Number.NaN]) {
      refused('sss', { t, pins: nul }, /must be a whole number from 1 to 1/)
    }
    refused('sss', { t: 1, pins: {} }, /from 1 to 0/)
    refused('sss', { t: 1, pins: [nul] }, /sss needs "pins"/)
    refused('sss', { t: 1 }, /sss needs "pins"/)
    refused('sss', { t: 1, pins: nul, extra: 1 }, /does not know the member "extra"/)
    refused('sss', { pins: { null: [1] } }, /not a JSON object/)
    refused('sss', { pins: { Tang: {} } }, /"Tang" is not a pin name/)
    refused('', {}, /not a pin name/)
    refused('tang', [], /not a JSON object/)
    refused('sss', { pins: { null: Array(65).fill({}) } }, /more than 64 pins/)
    const wide = { pins: { null: Array(60).fill({}) } }
    refused('sss', { pins: { sss: Array(5).fill(wide) } }, /more than 256 pins/)
  })

  test('nesting is bounded', () => {
    const nested = (depth: number): unknown =>
      depth === 1 ? { pins: { null: {} } } : { pins: { sss: nested(depth - 1) } }
    assert.doesNotThrow(() => parsePolicy('sss', nested(8)))
    refused('sss', nested(9), /nested deeper than 8/)
    refused('sss', nested(3000), /nested deeper than 8/)
  })

  test('anything is a policy or a fault', () => {
    fc.assert(
      fc.property(fc.oneof(fc.constant('sss'), fc.string()), fc.anything(), (pin, value) => {
        try {
          parsePolicy(pin, value)
        } catch (error) {
          assert.ok(isFault(error, 'seal.policy_invalid'), String(error))
        }
      }),
    )
    const parts = fc.record({ t: fc.anything(), pins: fc.anything() }, { requiredKeys: [] })
    fc.assert(
      fc.property(parts, (value) => {
        try {
          parsePolicy('sss', value)
        } catch (error) {
          assert.ok(isFault(error, 'seal.policy_invalid'), String(error))
        }
      }),
    )
  })
})
