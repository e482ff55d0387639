import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { addFiles, copyWithLibraries } from './image.ts'

// What a guest needs besides `image.ts` to run Debian's systemd as process 1: its programs, a journal,
// the targets between them, and one service that is the test.

/**
 * Unpacks the initial RAM disk into a tmpfs, which systemd can pivot in and out of, and starts it.
 * @param before lines of shell that prepare the new root, which is /new
 */
export const systemdInit = (before = '') => `#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module 2>/dev/null; done
ip link set lo up
mkdir /new && mount -t tmpfs -o mode=755 root /new
for each in bin etc guest lib lib64 root usr var; do cp -a /$each /new/; done
mkdir -p /new/proc /new/sys /new/dev /new/run /new/tmp
chmod 1777 /new/tmp
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
${before}
for each in proc sys dev; do mount --move /$each /new/$each; done
exec switch_root /new /lib/systemd/systemd
`

const programs = [
  '/lib/systemd/systemd',
  '/lib/systemd/systemd-journald',
  '/lib/systemd/systemd-shutdown',
  '/bin/systemctl',
  '/bin/systemd-run',
  '/bin/journalctl',
  '/sbin/dmsetup',
]

const copied = [
  'basic.target',
  'final.target',
  'local-fs-pre.target',
  'local-fs.target',
  'multi-user.target',
  'paths.target',
  'poweroff.target',
  'reboot.target',
  'shutdown.target',
  'slices.target',
  'sockets.target',
  'swap.target',
  'sysinit.target',
  'systemd-journald-audit.socket',
  'systemd-journald-dev-log.socket',
  'systemd-journald.service',
  'systemd-journald.socket',
  'systemd-poweroff.service',
  'systemd-reboot.service',
  'timers.target',
  'umount.target',
]

/** A service of the guest that writes to its console. */
const unit = (command: string) => `[Unit]
Requires=systemd-journald.socket
After=systemd-journald.socket systemd-journald.service basic.target

[Service]
ExecStart=${command}
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
`

/** The scenario is all that such a guest runs. */
const onlyScenario = { guest: '/usr/bin/node /guest/scenario.mjs' }

/**
 * Adds systemd to the tree of an image.
 * @param files files of this machine, by their paths in the guest
 * @param services commands that the guest runs at every boot, by the names of their units
 */
export async function addSystemd(
  root: string,
  files: Record<string, string>,
  services: Record<string, string> = onlyScenario,
): Promise<void> {
  for (const program of programs) await copyWithLibraries(root, program, program)
  const units = join(root, 'lib/systemd/system')
  await mkdir(units, { recursive: true })
  for (const unit of copied) await copyFile(join('/lib/systemd/system', unit), join(units, unit))
  await mkdir(join(units, 'multi-user.target.wants'))
  for (const [name, command] of Object.entries(services)) {
    await writeFile(join(units, `${name}.service`), unit(command))
    await symlink(`../${name}.service`, join(units, `multi-user.target.wants/${name}.service`))
  }
  await mkdir(join(units, 'sockets.target.wants'))
  for (const socket of ['systemd-journald.socket', 'systemd-journald-audit.socket'])
    await symlink(`../${socket}`, join(units, 'sockets.target.wants', socket))
  await symlink('multi-user.target', join(units, 'default.target'))
  await writeFile(
    join(root, 'etc/passwd'),
    'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n',
  )
  await writeFile(join(root, 'etc/group'), 'root:x:0:\nsystemd-journal:x:101:\nnogroup:x:65534:\n')
  await writeFile(join(root, 'etc/nsswitch.conf'), 'passwd: files\ngroup: files\n')
  await writeFile(join(root, 'etc/machine-id'), `${'0123456789abcdef'.repeat(2)}\n`)
  await writeFile(join(root, 'etc/os-release'), 'ID=guest\nNAME=guest\n')
  await addFiles(root, files)
}
