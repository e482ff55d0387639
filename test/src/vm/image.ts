import {
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { run } from '@holdfast/base'

// Builds a kernel and an initial RAM disk that hold just enough of Debian to run the command line:
// busybox, Node, cryptsetup, the device-mapper modules and the checkout's bundle. Everything comes
// from the packages of the machine's own apt sources.

export interface GuestImage {
  kernel: string
  initrd: string
}

const modules = [
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'dm_mod',
  'dm_crypt',
  'xts',
  'ecb',
  'cbc',
  'sha256_generic',
  'aesni_intel',
  'algif_skcipher',
  'algif_hash',
  'af_alg',
  'ext4',
  'loop',
  'veth',
  'wireguard',
]

const programs = [
  '/usr/sbin/cryptsetup',
  '/usr/sbin/mkfs.ext4',
  '/usr/bin/flock',
  '/usr/sbin/blkid',
]

/** Builds the image in `folder`; `init` is the shell script that becomes process 1. */
export async function buildImage(
  folder: string,
  checkout: string,
  init: string,
  add: (root: string) => Promise<void>,
): Promise<GuestImage> {
  const kernelTree = await unpackKernel()
  const root = join(folder, 'root')
  for (const name of [
    'bin',
    'dev',
    'proc',
    'sys',
    'run',
    'tmp',
    'etc',
    'lib/modules',
    'var/lib',
    'usr/sbin',
    'usr/bin',
    'root',
  ]) {
    await mkdir(join(root, name), { recursive: true })
  }
  await copyFile('/bin/busybox', join(root, 'bin/busybox'))
  await symlink('busybox', join(root, 'bin/sh'))
  const node = join(checkout, 'node_modules/.bin/node')
  await copyWithLibraries(root, node, '/usr/bin/node')
  for (const program of programs) await copyWithLibraries(root, program, program)
  // What other processes write into their compile cache meanwhile comes and goes.
  const filter = (path: string) => basename(path) !== '.compile-cache'
  await cp(join(checkout, 'cli/dist'), join(root, 'holdfast'), { recursive: true, filter })
  const list = await copyModules(kernelTree, root)
  await writeFile(join(root, 'lib/modules/order'), `${list.join('\n')}\n`)
  await add(root)
  await writeFile(join(root, 'init'), init, { mode: 0o755 })
  const initrd = join(folder, 'initrd.cpio')
  await run('sh', ['-c', `cd "$1" && find . | cpio --quiet -o -H newc > "$2"`, 'sh', root, initrd])
  const boot = await readdir(join(kernelTree, 'boot'))
  const kernel = boot.find((name) => name.startsWith('vmlinuz-'))
  if (kernel === undefined) throw new Error('the kernel package has no vmlinuz')
  return { kernel: join(kernelTree, 'boot', kernel), initrd }
}

/**
 * Makes one program of a source file and all it imports, and gives its files by their paths in the
 * guest: `guest/NAME` is the program.
 */
export async function bundled(
  checkout: string,
  source: string,
  folder: string,
  name: string,
): Promise<Record<string, string>> {
  const rolldown = join(checkout, 'node_modules/.bin/rolldown')
  await run(process.execPath, [
    ...[rolldown, source, '--format', 'esm', '--platform', 'node', '--dir', folder],
    ...['--entry-file-names', name, '--chunk-file-names', '[name]-[hash].mjs'],
  ])
  const files = await readdir(folder)
  return Object.fromEntries(files.map((file) => [`guest/${file}`, join(folder, file)]))
}

/** Downloads and unpacks Debian's cloud kernel once; later runs find it. */
async function unpackKernel(): Promise<string> {
  const { stdout } = await run('apt-cache', ['depends', '--important', 'linux-image-cloud-amd64'])
  const name = /Depends: (linux-image-\S+)/.exec(stdout.toString('utf8'))?.[1]
  if (name === undefined) throw new Error('apt knows no cloud kernel: run apt-get update')
  const cache = join(tmpdir(), 'holdfast-vm-kernel', name)
  if (await isWhole(cache, name)) return join(cache, 'tree')
  await mkdir(dirname(cache), { recursive: true })
  // Tests side by side may all come here: each makes one of its own, and the first that is whole stays.
  const own = await mkdtemp(`${cache}-`)
  await download(own, name)
  try {
    await rename(own, cache)
  } catch (error) {
    if (!(await isWhole(cache, name))) throw error
    await rm(own, { recursive: true })
  }
  return join(cache, 'tree')
}

async function isWhole(cache: string, name: string): Promise<boolean> {
  return (await readFile(join(cache, 'done'), 'utf8').catch(() => '')) === name
}

async function download(cache: string, name: string): Promise<void> {
  const tree = join(cache, 'tree')
  await run('apt-get', ['-q', 'download', name], { cwd: cache, timeout: 600_000 })
  const archive = (await readdir(cache)).find((file) => file.endsWith('.deb'))
  if (archive === undefined) throw new Error(`apt downloaded no package for ${name}`)
  await run('dpkg-deb', ['-x', join(cache, archive), tree])
  const [version = ''] = await readdir(join(tree, 'lib/modules'))
  await run('depmod', ['-b', tree, version])
  await writeFile(join(cache, 'done'), name)
}

/** Copies the modules with what they depend on; returns their names in loading order. */
async function copyModules(tree: string, root: string): Promise<string[]> {
  const [version = ''] = await readdir(join(tree, 'lib/modules'))
  const order: string[] = []
  for (const module of modules) {
    const { stdout } = await run(
      'modprobe',
      ['-d', tree, '-S', version, '--show-depends', module],
      { accept: [0, 1] },
    )
    for (const [, path = ''] of stdout.toString('utf8').matchAll(/^insmod (\S+)/gm)) {
      const name = basename(path)
      if (order.includes(name)) continue
      order.push(name)
      await copyFile(path, join(root, 'lib/modules', name))
    }
  }
  return order
}

/** Copies a program or library with the libraries that it is linked with. */
export async function copyWithLibraries(root: string, from: string, to: string): Promise<void> {
  const target = join(root, to)
  await mkdir(dirname(target), { recursive: true })
  await copyFile(from, target)
  const { stdout } = await run('ldd', [from])
  for (const [, library = ''] of stdout.toString('utf8').matchAll(/(?:=> )?(\/\S+) \(0x/g)) {
    await mkdir(join(root, dirname(library)), { recursive: true })
    await copyFile(library, join(root, library)).catch(() => undefined)
  }
}

/** Adds files of this machine to the tree of an image, by their paths in the guest. */
export async function addFiles(root: string, files: Record<string, string>): Promise<void> {
  for (const [to, from] of Object.entries(files)) {
    await mkdir(dirname(join(root, to)), { recursive: true })
    await copyFile(from, join(root, to))
  }
}
