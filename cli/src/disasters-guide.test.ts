import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { drills } from '@holdfast/drills'

// The disasters guide is read when things are bad: each disaster has its section, and each section a
// drill behind it. That its commands exist is tested with those of all documents, in docs.test.ts.

const guide = await readFile(new URL('../../docs/operator/disasters.md', import.meta.url), 'utf8')

describe('the disasters guide', () => {
  it('has a section for every drill, in the same order', () => {
    const sections = [...guide.matchAll(/^## (\S+)$/gm)].map(([, name]) => name)
    assert.deepEqual(
      sections,
      drills.map(({ name }) => name),
    )
  })

  it('says in every section what is proven', () => {
    for (const section of guide.split(/^## /m).slice(1)) assert.match(section, /^\*Proven:\*/m)
  })
})
