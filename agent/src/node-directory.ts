import { join } from 'node:path'
import {
  ensureDirectory,
  lock,
  readIfPresent,
  removeDurable,
  renameDurable,
  Secret,
  shredDurable,
  writeDurable,
} from '@holdfast/base'
import { BootStateStore } from './boot-state.ts'
import { agentFault } from './faults.ts'
import { finishForgetting } from './forget.ts'
import {
  derivedKey,
  keysPath,
  makeKeys,
  type NodeKeys,
  newKeysPath,
  readKeys,
  writeKeys,
} from './identity.ts'
import { isSealed, type KeySeal, openKeySeal } from './key-seal.ts'
import { factoryState, type LifeState, lifeStateSchema } from './life-state.ts'

// A node's directory outside the vault: keys, boot state, and what it guards for others. A new
// machine makes keys under another name, writes its first boot state under them, and only then gives
// the keys their name. So: keys and no state is a loss, state and no keys is a loss, and neither is
// mistaken for a new machine.

export interface NodeDirectory extends AsyncDisposable {
  readonly path: string
  readonly keys: NodeKeys
  /** How this directory's private keys are kept. */
  readonly keeping: KeySeal
  readonly store: BootStateStore<LifeState>
  readonly state: LifeState
  /** Copies of the boot state that had to be repaired. */
  readonly repaired: readonly string[]
}

/**
 * Opens the directory of this node, which must be the only process to do so; an empty one becomes a
 * new machine in phase `factory`.
 * @param tcti the TPM that seals the keys; keys that were made before there was one are sealed now
 * @throws Fault base.locked, agent.keys_sealed_elsewhere, agent.identity_absent, agent.identity_damaged, agent.state_absent,
 *   agent.state_damaged, agent.state_foreign
 */
export async function openNodeDirectory(path: string, tcti?: string): Promise<NodeDirectory> {
  await ensureDirectory(path)
  const held = await lock(join(path, 'lock'), path)
  try {
    await finishForgetting(path)
    const keeping = await openKeySeal(path, tcti)
    await sealPlain(path, keeping)
    const keys = (await readKeys(keysPath(path), keeping)) ?? (await firstKeys(path, keeping))
    const store = storeOf(path, keys)
    const found = await store.read()
    if (found === undefined) throw stateAbsent(path)
    return {
      path,
      keys,
      keeping,
      store,
      state: found.body,
      repaired: found.repaired,
      [Symbol.asyncDispose]: () => held[Symbol.asyncDispose](),
    }
  } catch (error) {
    await held[Symbol.asyncDispose]()
    throw error
  }
}

function storeOf(path: string, keys: NodeKeys): BootStateStore<LifeState> {
  return new BootStateStore({
    directory: path,
    key: derivedKey(keys, 'boot-state'),
    parse: (value) => lifeStateSchema.parse(value),
  })
}

/**
 * Seals keys that were written before there was a TPM. The sealed file is whole before the plain one is
 * overwritten, and takes its name after that.
 */
async function sealPlain(path: string, keeping: KeySeal): Promise<void> {
  if (keeping.kind === 'file') return
  const aside = join(path, 'keys-sealed.json')
  const plain = await readIfPresent(keysPath(path), 65_536)
  if (plain === undefined) {
    if ((await readIfPresent(aside, 65_536)) !== undefined)
      await renameDurable(aside, keysPath(path))
    return
  }
  if (isSealed(plain)) return
  using content = Secret.take(plain)
  using sealed = await keeping.wrap('keys.json', content)
  await writeDurable(aside, sealed.reveal())
  await shredDurable(keysPath(path))
  await renameDurable(aside, keysPath(path))
}

/** The keys of a new machine, or those that an interrupted first start had made. */
async function firstKeys(path: string, keeping: KeySeal): Promise<NodeKeys> {
  const begun = await readKeys(newKeysPath(path), keeping).catch(() => undefined)
  if (begun !== undefined && (await beganWith(path, begun))) {
    await renameDurable(newKeysPath(path), keysPath(path))
    return begun
  }
  const keys = makeKeys()
  const store = storeOf(path, keys)
  await requireNoState(path, store)
  await removeDurable(newKeysPath(path))
  await writeKeys(newKeysPath(path), keys, keeping)
  await store.write(factoryState)
  await renameDurable(newKeysPath(path), keysPath(path))
  return keys
}

/** True when the first boot state has been written under these keys. */
async function beganWith(path: string, keys: NodeKeys): Promise<boolean> {
  return (await storeOf(path, keys).read()) !== undefined
}

async function requireNoState(path: string, store: BootStateStore<LifeState>): Promise<void> {
  try {
    if ((await store.read()) === undefined) return
  } catch {
    // There is a state under other keys, or a damaged one: either way this is no new machine.
  }
  throw agentFault('agent.identity_absent', `${path} has a boot state but not the node's keys`, {
    hint: `put ${keysPath(path)} back; a new identity would own no share at any guardian`,
  })
}

function stateAbsent(path: string): Error {
  return agentFault('agent.state_absent', `${path} has the node's keys but no boot state`, {
    hint: 'put boot-state.a or boot-state.b back; this is not treated as a new machine',
  })
}
