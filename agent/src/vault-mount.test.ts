import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decideFileSystem } from './vault-mount.ts'

// That it mounts is shown in a virtual machine (test/src/vm/services.test.ts); here, that no power cut
// makes it write over data.

interface Disk {
  known: 'making' | 'made' | undefined
  blank: boolean
  /** Somebody has stored something. */
  data: boolean
}

/** One mount, cut off after so many changes of the disk. */
function mount(disk: Disk, cut: number): Disk {
  let left = cut
  const next = { ...disk }
  const change = (act: () => void) => {
    if (left > 0) act()
    left -= 1
  }
  const decided = decideFileSystem(next.known, next.blank)
  if (decided === 'gone') return next
  if (decided === 'make') {
    assert.equal(next.data, false, 'a file system was made over data')
    change(() => {
      next.known = 'making'
    })
    change(() => {
      next.blank = false // half of it
    })
    change(() => undefined) // the rest
  }
  change(() => {
    next.known = 'made'
  })
  change(() => {
    next.data = true
  })
  return next
}

test('no sequence of power cuts writes over data, and the next whole mount works', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.array(fc.nat(6), { maxLength: 6 }), (adopted, cuts) => {
      let disk: Disk = { known: undefined, blank: !adopted, data: adopted }
      for (const cut of cuts) disk = mount(disk, cut)
      disk = mount(disk, 6)
      assert.deepEqual(disk, { known: 'made', blank: false, data: true })
    }),
  )
})

test('a file system that has gone is not made again', () => {
  assert.equal(decideFileSystem('made', true), 'gone')
})
