import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DurableRecord, ensureDirectory, run } from '@holdfast/base'
import { z } from 'zod'
import { agentFault } from './faults.ts'

// The file system in the opened vault. It is made once, when the vault is new, and mounted whenever
// the vault is open; its services' directory is mounted a second time where systemd keeps the state
// of services. Everything here may be done again after a power cut anywhere.

export interface VaultMountOptions {
  /** The node's directory, where it is remembered that a file system has been made. */
  directory: string
  /** Where the vault is mounted. */
  path: string
  /** Where its services' directory is mounted. */
  services: string
}

const recordSchema = z.strictObject({
  v: z.literal(1),
  device: z.string(),
  state: z.enum(['making', 'made']),
})
type Recorded = z.infer<typeof recordSchema>

/** blkid(8): nothing found. */
const nothing = 2

export class VaultMount {
  readonly path: string
  readonly #options: VaultMountOptions
  readonly #record: DurableRecord<Recorded>

  constructor(options: VaultMountOptions) {
    this.path = options.path
    this.#options = options
    this.#record = new DurableRecord(join(options.directory, 'volume.json'), (value) =>
      recordSchema.parse(value),
    )
  }

  /**
   * Mounts what the mapping `device` holds, making the file system if the vault is new.
   * @throws Fault agent.volume_damaged when the file system that was made is not there
   */
  async mount(device: string): Promise<void> {
    const { path, services } = this.#options
    const mounted = await mountPoints()
    if (!mounted.has(path)) {
      await this.#requireFileSystem(device)
      await ensureDirectory(path)
      await run('mount', ['-o', 'nodev,nosuid', device, path])
    }
    await ensureDirectory(join(path, 'services'))
    if (mounted.has(services)) return
    await ensureDirectory(services) // 0700, as systemd wants /var/lib/private
    await run('mount', ['--bind', join(path, 'services'), services])
  }

  async unmount(): Promise<void> {
    const mounted = await mountPoints()
    for (const path of [this.#options.services, this.path]) {
      if (mounted.has(path)) await run('umount', [path])
    }
  }

  async isMounted(): Promise<boolean> {
    const mounted = await mountPoints()
    return mounted.has(this.path) && mounted.has(this.#options.services)
  }

  async #requireFileSystem(device: string): Promise<void> {
    const record = await this.#record.read()
    const known = record?.device === device ? record.state : undefined
    const decided = decideFileSystem(known, await isBlank(device))
    if (decided === 'gone') {
      throw agentFault('agent.volume_damaged', `the file system on ${device} is gone`, {
        hint: 'nothing was written; look at the disk, and restore the data from your backup',
      })
    }
    if (decided === 'make') {
      await this.#record.write({ v: 1, device, state: 'making' })
      await run('mkfs.ext4', ['-q', '-F', device], { timeout: 600_000 })
    }
    if (known !== 'made') await this.#record.write({ v: 1, device, state: 'made' })
  }
}

/**
 * What to do about the file system of an opened vault, from what is remembered of this vault and
 * whether there is anything on it. Pure. A half-made one may look finished: it is made again, as
 * nothing can have been stored in it. One that was made is never made again.
 */
export function decideFileSystem(
  known: Recorded['state'] | undefined,
  blank: boolean,
): 'use' | 'make' | 'gone' {
  if (known === 'making') return 'make'
  if (!blank) return 'use'
  return known === 'made' ? 'gone' : 'make'
}

async function isBlank(device: string): Promise<boolean> {
  const { code } = await run('blkid', ['--probe', device], { accept: [0, nothing] })
  return code === nothing
}

/** Every mount point that this process sees (proc(5), mountinfo: the fifth field, octal escapes). */
async function mountPoints(): Promise<ReadonlySet<string>> {
  const text = await readFile('/proc/self/mountinfo', 'utf8')
  const unescaped = (path: string) =>
    path.replace(/\\([0-7]{3})/g, (_, code: string) =>
      String.fromCharCode(Number.parseInt(code, 8)),
    )
  return new Set(text.split('\n').map((line) => unescaped(line.split(' ')[4] ?? '')))
}
