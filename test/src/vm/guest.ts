import { join } from 'node:path'
import { run } from '@holdfast/base'
import type { GuestImage } from './image.ts'

/**
 * The kernel says only what is wrong with the guest. What it says when a processor has stood still for
 * long would come in the middle of a line of the test's: an emulated one may, when this machine is busy.
 */
const kernelOptions = 'console=ttyS0 quiet panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1'

/** A port of this machine, on 127.0.0.1 alone, that leads to one of the guest's. */
export interface Forward {
  host: number
  guest: number
}

/**
 * The words that `qemu-system-x86_64` boots a guest with, under software emulation. Its console goes
 * to the file. Without forwards it has no network; with them, 10.0.2.2 is this machine's 127.0.0.1.
 */
export function guestArguments(
  image: GuestImage,
  disks: readonly string[],
  console: string,
  forwards: readonly Forward[] = [],
): string[] {
  const rules = forwards.map(({ host, guest }) => `,hostfwd=tcp:127.0.0.1:${host}-:${guest}`)
  const network =
    forwards.length === 0
      ? ['-nic', 'none']
      : ['-nic', `user,model=virtio-net-pci${rules.join('')}`]
  return [
    ...['-accel', 'tcg,thread=multi,tb-size=256', '-cpu', 'max', '-smp', '2', '-m', '1536'],
    ...['-display', 'none', '-monitor', 'none', '-serial', `file:${console}`, ...network],
    ...['-kernel', image.kernel, '-initrd', image.initrd],
    ...['-append', kernelOptions],
    ...disks.flatMap((disk) => ['-drive', `file=${disk},format=raw,if=virtio`]),
  ]
}

/**
 * Boots a guest until it powers itself off or would boot again; returns its console.
 * @param timeout milliseconds
 */
export async function bootGuest(
  image: GuestImage,
  disk: string,
  folder: string,
  timeout = 3_000_000,
): Promise<string> {
  const console = join(folder, 'console.log')
  const args = ['-no-reboot', ...guestArguments(image, [disk], console)]
  const { stdout } = await run('qemu-system-x86_64', args, { timeout })
  stdout.fill(0)
  const { stdout: text } = await run('cat', [console])
  return text.toString('utf8')
}
