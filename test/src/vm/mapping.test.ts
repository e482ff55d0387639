import assert from 'node:assert/strict'
import { copyFile, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bootGuest } from './guest.ts'
import { buildImage } from './image.ts'

// This kernel may have no device-mapper; a guest's has. So the one thing that cannot be tried
// outside, mapping a volume and using it, is tried in a virtual machine.

const here = dirname(fileURLToPath(import.meta.url))
const checkout = join(here, '../../..')

const init = `#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm && mount -t tmpfs run /run
ln -s /proc/self/fd /dev/fd
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module 2>/dev/null; done
ip link set lo up
node /scenario.mjs
poweroff -f
`

type Step = {
  step: string
  status?: number
  mapped?: boolean
  before?: boolean
  text?: string
  answer?: Record<string, unknown>
}

test('a vault is mapped, mounted, locked, waited for, opened again and destroyed under device-mapper', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-vm-'))
  try {
    const disk = join(folder, 'disk')
    await writeFile(disk, '')
    await truncate(disk, 64 * 1024 * 1024)
    const image = await buildImage(folder, checkout, init, (root) =>
      copyFile(join(here, 'scenario.mjs'), join(root, 'scenario.mjs')),
    )
    const console = await bootGuest(image, disk, folder)
    const steps = [...console.matchAll(/^STEP (.*)$/gm)].map(
      ([, line = '']) => JSON.parse(line) as Step,
    ) // the scenario's own lines
    const find = (name: string): Step => {
      const step = steps.find((each) => each.step === name)
      assert.ok(step, `no step "${name}" in:\n${console.slice(-6000)}`)
      return step
    }
    assert.equal(find('create').status, 0, JSON.stringify(find('create')))
    assert.deepEqual(
      [find('unlock').status, find('unlock').mapped],
      [0, true],
      JSON.stringify(find('unlock')),
    )
    assert.deepEqual(
      [find('lock').status, find('lock').mapped],
      [0, false],
      JSON.stringify(find('lock')),
    )
    assert.deepEqual(
      [find('refused').status, find('refused').mapped],
      [5, false],
      JSON.stringify(find('refused')),
    )
    assert.deepEqual(
      [find('waited').status, find('waited').before, find('waited').mapped],
      [0, false, true],
    )
    assert.equal(find('data').text, 'it was here')
    assert.deepEqual(
      [find('destroyed').status, find('destroyed').mapped],
      [0, false],
      JSON.stringify(find('destroyed')),
    )
    assert.equal(find('gone').status, 7, JSON.stringify(find('gone')))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
