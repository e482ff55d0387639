import { join } from 'node:path'
import { run } from '@holdfast/base'
import type { GuestImage } from './image.ts'

/**
 * Boots a guest under software emulation until it powers itself off; returns its console.
 * @param timeout milliseconds
 */
export async function bootGuest(
  image: GuestImage,
  disk: string,
  folder: string,
  timeout = 400_000,
): Promise<string> {
  const console = join(folder, 'console.log')
  const { stdout } = await run(
    'qemu-system-x86_64',
    [
      '-accel',
      'tcg,thread=multi,tb-size=256',
      '-cpu',
      'max',
      '-smp',
      '2',
      '-m',
      '1536',
      '-display',
      'none',
      '-no-reboot',
      '-nic',
      'none',
      '-monitor',
      'none',
      '-serial',
      `file:${console}`,
      '-kernel',
      image.kernel,
      '-initrd',
      image.initrd,
      '-append',
      'console=ttyS0 quiet panic=-1',
      '-drive',
      `file=${disk},format=raw,if=virtio`,
    ],
    { timeout },
  )
  stdout.fill(0)
  const { stdout: text } = await run('cat', [console])
  return text.toString('utf8')
}
