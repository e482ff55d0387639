import assert from 'node:assert/strict'
import { mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bootGuest } from './guest.ts'
import { addFiles, buildImage, bundled, copyWithLibraries } from './image.ts'

// This kernel may have no WireGuard, and tunnels outside are then made by wireguard-go; a guest's has
// it, and no wireguard-go. The scenario is `agent/src/network.vm.ts`.

const here = dirname(fileURLToPath(import.meta.url))
const checkout = join(here, '../../..')

const init = `#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/bin HOME=/root
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm && mount -t tmpfs run /run
ln -s /proc/self/fd /dev/fd
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module 2>/dev/null; done
node /guest/scenario.mjs
poweroff -f
`

type Step = { step: string } & Record<string, unknown>

test('nodes talk through the WireGuard of the kernel where it has it, and say so', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-wireguard-'))
  try {
    const disk = join(folder, 'disk')
    await writeFile(disk, '')
    await truncate(disk, 1024 * 1024)
    const source = join(checkout, 'agent/src/network.vm.ts')
    const files = await bundled(checkout, source, join(folder, 'bundle'), 'scenario.mjs')
    const image = await buildImage(folder, checkout, init, async (root) => {
      await symlink('/run', join(root, 'var/run')) // where ip(8) keeps namespaces
      await copyWithLibraries(root, '/bin/ip', '/usr/sbin/ip')
      await copyWithLibraries(root, '/usr/bin/wg', '/usr/bin/wg')
      await addFiles(root, files)
    })
    const console = await bootGuest(image, disk, folder)
    const steps = [...console.matchAll(/^STEP (.*?)\r?$/gm)].map(
      ([, line = '']) => JSON.parse(line) as Step, // the scenario's own lines
    )
    const find = (name: string): Step => {
      const step = steps.find((each) => each.step === name)
      assert.ok(step, `no step "${name}" in:\n${console.slice(-6000)}`)
      return step
    }
    const alone = find('alone')
    assert.deepEqual([alone.network, alone.answers], ['mutual-tls', false])
    assert.match(String(alone.networkReason), /^kernel-wireguard runs, and nobody answers/)
    const together = find('together')
    assert.equal(together.answers, true)
    for (const side of ['near', 'far'])
      assert.deepEqual(together[side], { network: 'kernel-wireguard' }, side)
    assert.deepEqual(together.links, ['lo', 'eth0', 'hf-near'])
    assert.equal(together.from, together.here)
    assert.equal(find('stranger').answers, false, 'the peer of another key is nobody')
    assert.deepEqual(find('over').links, ['lo', 'eth0'], 'the interface goes with the agent')
    const again = find('again')
    assert.match(String(again.networkReason), /^kernel-wireguard runs/)
    assert.deepEqual(again.links, ['lo', 'eth0', 'hf-near'])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
