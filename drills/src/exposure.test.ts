import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Inspection } from '@holdfast/seal'
import fc from 'fast-check'
import { type ExposedServer, type ExposedVolume, marginOf, planExposure } from './exposure.ts'

function server(name: string, kids: readonly string[]): ExposedServer {
  return {
    name,
    keys: kids.map((kid) => ({ kid, prefix: '', state: 'advertised', marked: false })),
  }
}

function tang(kid: string): Inspection {
  return { pin: 'tang', label: kid, kid }
}

function anyOf(t: number, kids: readonly string[]): Inspection {
  return { pin: 'sss', label: 'threshold', threshold: t, children: kids.map(tang) }
}

function volume(
  name: string,
  reachable: boolean,
  t: number,
  kids: readonly string[],
): ExposedVolume {
  return {
    name,
    reachable,
    ways: [
      { keyslot: 0, purpose: 'automatic', inspection: anyOf(t, kids) },
      { keyslot: 1, purpose: 'owner' },
    ],
  }
}

const estate = fc.record({
  exposed: fc.subarray(['a', 'b', 'c', 'd', 'e'], { minLength: 1 }),
  volumes: fc
    .array(
      fc.record({
        reachable: fc.boolean(),
        kids: fc.subarray(['a', 'b', 'c', 'd', 'e'], { minLength: 1 }),
        t: fc.integer({ min: 1, max: 5 }),
      }),
      { maxLength: 12 },
    )
    .map((list) =>
      list.map(({ reachable, kids, t }, index) =>
        volume(`v${index}`, reachable, Math.min(t, kids.length), kids),
      ),
    ),
})

describe('the plan after key material was exposed', () => {
  it('puts every volume into exactly one of: rekeyed and verified, unreached, unaffected', () => {
    fc.assert(
      fc.property(estate, ({ exposed, volumes }) => {
        const plan = planExposure([server('s', exposed)], volumes)
        const rekeyed = plan.steps.flatMap((step) => (step.do === 'rekey' ? [step.volume] : []))
        const verified = plan.steps.flatMap((step) => (step.do === 'verify' ? [step.volume] : []))
        assert.deepEqual(verified, rekeyed)
        const all = [...rekeyed, ...plan.unreached.map((one) => one.volume), ...plan.unaffected]
        assert.deepEqual(all.sort(), volumes.map(({ name }) => name).sort())
        for (const { name, reachable, ways } of volumes) {
          const kids = ways.flatMap(({ inspection }) => inspection?.children ?? [])
          const hit = kids.some(({ kid }) => exposed.includes(kid ?? ''))
          assert.equal(plan.unaffected.includes(name), !hit)
          assert.equal(rekeyed.includes(name), hit && reachable)
        }
      }),
    )
  })

  it('destroys last, and rotates before the first rekey', () => {
    fc.assert(
      fc.property(estate, ({ exposed, volumes }) => {
        const order = ['mark_compromised', 'rotate', 'rekey', 'verify', 'destroy']
        const servers = exposed.map((kid) => server(`server-${kid}`, [kid]))
        const phases = planExposure(servers, volumes).steps.map((step) =>
          step.do === 'verify' ? order.indexOf('rekey') : order.indexOf(step.do),
        )
        assert.deepEqual(
          phases,
          [...phases].sort((a, b) => a - b),
        )
        assert.equal(phases.filter((phase) => phase === 4).length, servers.length)
      }),
    )
  })

  it('calls a volume stranded exactly when fewer than t of its keys are left', () => {
    fc.assert(
      fc.property(estate, ({ exposed, volumes }) => {
        const plan = planExposure([server('s', exposed)], volumes)
        for (const { name, reachable, ways } of volumes) {
          const inspection = ways[0]?.inspection
          const left = (inspection?.children ?? []).filter(
            ({ kid }) => !exposed.includes(kid ?? ''),
          )
          const hit = left.length < (inspection?.children?.length ?? 0)
          const short = left.length < (inspection?.threshold ?? 0)
          assert.equal(plan.stranded.includes(name), hit && !reachable && short)
        }
      }),
    )
  })

  it('repeats nothing that an earlier run has done', () => {
    const rotated = { kid: 'a', prefix: '', state: 'hidden', marked: true } as const
    const gone = { kid: 'b', prefix: '', state: 'retired', marked: true } as const
    const moved = volume('v', true, 1, ['new'])
    const steps = (keys: ExposedServer['keys']) =>
      planExposure([{ name: 's', keys }], [moved]).steps
    assert.deepEqual(steps([rotated, gone]), [{ do: 'destroy', server: 's', keys: ['a'] }])
    assert.deepEqual(steps([gone]), [])
  })

  it('says of an unreached volume which ways by people remain', () => {
    const [unreached] = planExposure(
      [server('s', ['a', 'b'])],
      [volume('far', false, 2, ['a', 'b', 'c'])],
    ).unreached
    assert.deepEqual(unreached, { volume: 'far', keyslots: [0], margin: -1, recovery: [1] })
  })

  it('measures nested policies from the leaves up', () => {
    const nested: Inspection = {
      pin: 'sss',
      label: '1 of 2',
      threshold: 1,
      children: [anyOf(2, ['a', 'b']), anyOf(1, ['c'])],
    }
    assert.equal(marginOf(nested, new Set(['a'])), 0)
    assert.equal(marginOf(nested, new Set()), 1)
    assert.equal(marginOf(nested, new Set(['a', 'c'])), -1)
  })
})
