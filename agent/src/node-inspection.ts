import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, isFault, readBounded } from '@holdfast/base'
import { BootStateStore, type CopyStanding } from './boot-state.ts'
import { derivedKey, keysPath, type NodeKeys, readKeys } from './identity.ts'
import { openKeySeal, plainSeal, sealedKeyName } from './key-seal.ts'
import { type LifeState, lifeStateSchema } from './life-state.ts'

// A node's directory looked at from outside, by somebody at its console while the agent runs or cannot:
// no lock is taken, nothing is repaired, and no keys are made.

export interface NodeInspection {
  /** The node's id, when its keys can be read. */
  node?: string
  /** `elsewhere`: they are sealed by a TPM that is not here. */
  keys: 'present' | 'absent' | 'damaged' | 'elsewhere'
  copies: readonly CopyStanding[]
  /** True while a process holds the directory. */
  running: boolean
  /** From the newest whole copy. */
  state?: LifeState
}

/**
 * @param tcti the TPM that may have sealed the keys
 * @throws Fault base.* when the directory cannot be read by this user
 */
export async function inspectNodeDirectory(path: string, tcti?: string): Promise<NodeInspection> {
  const [found, running] = await Promise.all([keysIn(path, tcti), isHeld(join(path, 'lock'))])
  if (typeof found === 'string') {
    return { keys: found, running, copies: await unreadableCopies(path) }
  }
  const store = new BootStateStore({
    directory: path,
    key: derivedKey(found, 'boot-state'),
    parse: (value) => lifeStateSchema.parse(value),
  })
  const { copies, body } = await store.inspect()
  return {
    node: found.node,
    keys: 'present',
    copies,
    running,
    ...(body === undefined ? {} : { state: body }),
  }
}

async function keysIn(
  path: string,
  tcti: string | undefined,
): Promise<NodeKeys | Exclude<NodeInspection['keys'], 'present'>> {
  try {
    // Without a sealed key there is nothing to unseal, and opening would make one.
    const sealed = (await namesIn(path)).includes(sealedKeyName)
    const keeping = sealed ? await openKeySeal(path, tcti) : plainSeal
    return (await readKeys(keysPath(path), keeping)) ?? 'absent'
  } catch (error) {
    if (isFault(error, 'agent.identity_damaged')) return 'damaged'
    if (isFault(error, 'agent.keys_sealed_elsewhere')) return 'elsewhere'
    throw error
  }
}

/** Without the node's keys a copy can only be seen to be there. */
async function unreadableCopies(path: string): Promise<CopyStanding[]> {
  const there = await namesIn(path)
  return ['boot-state.a', 'boot-state.b'].map((name) =>
    there.includes(name) ? { name, problem: 'it is under keys that cannot be read' } : { name },
  )
}

async function namesIn(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  }
}

/** The kernel knows who holds a lock (proc(5), /proc/locks); asking by taking it would disturb. */
async function isHeld(path: string): Promise<boolean> {
  try {
    const { ino } = await stat(path)
    const locks = (await readBounded('/proc/locks', 16 * 1024 * 1024)).toString('utf8')
    return locks.split('\n').some((line) => line.includes('FLOCK') && line.includes(`:${ino} `))
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || isFault(error, 'base.file_absent')) return false
    throw error
  }
}
