import { access, stat } from 'node:fs/promises'
import { type Clock, isFault, run, type Secret } from '@holdfast/base'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import type { Enrolment } from '@holdfast/protocol/frames'
import type { OpenEvent, Pins } from '@holdfast/seal'
import {
  bindVault,
  closeMapping,
  createVault,
  editVault,
  listVault,
  luksType,
  type PanicLevel,
  type PanicPlan,
  type Receipt,
  type RecoveryWay,
  readUuid,
  recoveryWays,
  rehearseVault,
  resumeVault,
  type Unlocked,
  unbindVault,
  unlockVault,
  type VaultDeps,
  type VaultListing,
  type VolumeRef,
  vaultFault,
} from '@holdfast/vault'
import type { LifeEvent } from './life-event.ts'
import type { GuardianSet } from './life-state.ts'
import {
  automaticPolicy,
  inForce,
  isForWard,
  isOwnLabel,
  recoveryPolicy,
  wayLabel,
} from './node-policy.ts'
import { type RekeyedWay, rekeyNode } from './node-rekey.ts'
import {
  awaitingHeaders,
  describeEnd,
  endVault,
  receiptFor,
  recordOf,
  type VaultEnd,
  wasPanicked,
} from './vault-end.ts'

// The effects of a node's life on its disk, each of which may be done again after a power cut anywhere.
// The vault's own journal makes every change of the header whole; what is here only finds out what has
// been done already.

export interface NodeVaultOptions {
  /** This node's id. */
  node: string
  device: string
  /** Where the vault's records are kept, outside of the vault. */
  stateDirectory: string
  pins: () => Pins
  clock: Clock
  enrolment: () => Enrolment | undefined
  /** The newest that the coordinator has signed. */
  policy?: () => PolicyDocument | undefined
  /** The guardians that the node has proven. */
  set?: () => GuardianSet | undefined
  /** What uses the opened vault. */
  users?: VaultUsers
}

export interface VaultUsers {
  /** Lets go of the vault, which is about to close. May come twice. */
  beforeClose(): Promise<void>
  /** The vault is open: mapped as this device, or only proven. Must not fail. */
  afterOpen(device: string | undefined): void
}

const awaits = 'was wiped by panic 2 and the holders can bring it back: the sealed header of'
/** blkid(8): nothing found, more than one thing found. */
const blkidCodes = [0, 2, 8]

export class NodeVault {
  readonly #options: NodeVaultOptions
  /** The last change of the header that was asked for. */
  #turn: Promise<void> = Promise.resolve()

  constructor(options: NodeVaultOptions) {
    this.#options = options
  }

  get #deps(): VaultDeps {
    const { node, pins, stateDirectory, clock } = this.#options
    return { pins: pins(), stateDirectory, clock, actor: 'agent', owner: node }
  }

  /** What binds this node's vault today. */
  get #enrolment(): Enrolment | undefined {
    const enrolment = this.#options.enrolment()
    return enrolment && inForce(enrolment, this.#options.policy?.())
  }

  get #volume() {
    return { device: this.#options.device }
  }

  /** What the disk carries. Only a header with a record of this node's own is its own. */
  async probe(): Promise<LifeEvent & { kind: 'probed' }> {
    const { device } = this.#options
    const type = await luksType(this.#volume)
    if (type === 'luks2') {
      const uuid = await readUuid(this.#volume)
      const state = await recordOf(this.#options.stateDirectory, uuid)
      if (state === 'creating') return probed('unfinished', device)
      if (state === 'ready')
        return probed((await wasPanicked(this.#deps, uuid)) ? 'restored' : 'ours', device)
    }
    const [waiting] = type === undefined ? await awaitingHeaders(this.#deps) : []
    if (waiting !== undefined) return probed('occupied', `${device} ${awaits} ${waiting}`)
    if (type !== undefined) return probed('occupied', `${device} holds a ${type} header`)
    const args = ['--probe', '--output', 'export', device]
    const result = await run('blkid', args, { accept: blkidCodes })
    if (result.code === 2) return probed('nothing', device)
    const [, what = 'data of several kinds'] =
      /^(?:TYPE|PTTYPE)=(.*)$/m.exec(result.stdout.toString('utf8')) ?? []
    return probed('occupied', `${device} holds ${what}`)
  }

  /** Makes the vault; one that is finished already is left alone. */
  async format(enrolment: Enrolment, set: GuardianSet | undefined, signal: AbortSignal) {
    const { found } = await this.probe()
    if (found === 'ours') return
    const current = inForce(enrolment, this.#options.policy?.())
    await createVault(this.#deps, this.#volume, {
      automatic: automaticPolicy(this.#options.node, current, set),
      recovery: recoveryPolicy(current),
      unproven: true, // the holders are not here
      label: wayLabel(set),
      signal,
    })
  }

  /** Whoever uses the vault lets go of it first. */
  async close(): Promise<void> {
    await this.#options.users?.beforeClose()
    if (await this.isMapped()) await closeMapping(await this.#mapping())
  }

  /** The opened vault as a device, if device-mapper holds it open. */
  async mapped(): Promise<string | undefined> {
    return (await this.isMapped()) ? `/dev/mapper/${await this.#mapping()}` : undefined
  }

  async #opened(): Promise<void> {
    this.#options.users?.afterOpen(await this.mapped())
  }

  /** True when device-mapper holds the vault open. */
  async isMapped(): Promise<boolean> {
    const name = await this.#mapping().catch(() => undefined)
    if (name === undefined) return false
    return await access(`/dev/mapper/${name}`).then(
      () => true,
      () => false,
    )
  }

  /**
   * The volume's lock refuses whoever comes second, also within this process: what changes the header
   * takes turns, so that an operator's key does not fail because the agent is busy with the vault.
   */
  async #alone<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(change)
    this.#turn = turn.then(
      () => undefined,
      () => undefined,
    )
    return await turn
  }

  async #mapping(): Promise<string> {
    return `holdfast-${await readUuid(this.#volume)}`
  }

  /** Opens by the automatic ways, trying for ever. */
  async unlock(signal: AbortSignal, onEvent: (event: OpenEvent) => void): Promise<Unlocked> {
    await this.#alone(() => resumeVault(this.#deps, this.#volume))
    // A mapping whose proof was not written down before the power went: it is made again.
    await this.close()
    const unlocked = await unlockVault(this.#deps, this.#volume, {
      name: await this.#mapping(),
      retry: true,
      signal,
      onEvent,
    })
    await this.#opened()
    return unlocked
  }

  /**
   * Opens with a pushed passphrase. `renew` makes the temporary way anew, whose key has gone with the
   * power, or makes one where there is none, because every other way was another identity's.
   * @throws Fault vault.passphrase_wrong
   */
  async unlockWith(passphrase: Secret, renew: boolean): Promise<Unlocked> {
    const unlocked = await unlockVault(this.#deps, this.#volume, {
      name: await this.#mapping(),
      testOnly: await this.isMapped(),
      purposes: [],
      passphrase: async () => passphrase.clone(),
    })
    await this.#opened()
    if (renew) await this.#renewTemporary(passphrase)
    return unlocked
  }

  /** The old token cannot prove itself any more, so the policy is given anew. */
  async #renewTemporary(passphrase: Secret): Promise<void> {
    const slot = await this.#slotOf('temporary')
    const enrolment = this.#enrolment
    if (enrolment === undefined) return
    const policy = automaticPolicy(this.#options.node, { ...enrolment, genesis: true })
    const options = { passphrase, label: wayLabel(undefined) }
    await this.#alone(() =>
      slot === undefined
        ? bindVault(this.#deps, this.#volume, policy, options)
        : editVault(this.#deps, this.#volume, slot, policy, { ...options, force: true }),
    )
  }

  /** The keyslot of a set of guardians: the one that is there already, or a new one. */
  async bind(set: GuardianSet, signal: AbortSignal): Promise<number> {
    await this.#alone(() => resumeVault(this.#deps, this.#volume))
    const label = wayLabel(set)
    const found = await this.#slotOf(label)
    if (found !== undefined) return found
    const enrolment = this.#enrolment
    if (enrolment === undefined) throw new Error('a node without an enrolment was re-shared')
    const policy = automaticPolicy(this.#options.node, enrolment, set)
    const { keyslot } = await this.#alone(() =>
      bindVault(this.#deps, this.#volume, policy, { label, signal }),
    )
    if (keyslot === undefined) throw new Error('a binding was made without a keyslot')
    return keyslot
  }

  /** A restored header may carry the ways of an identity that has gone, under the same labels. */
  async #slotOf(wanted: string): Promise<number | undefined> {
    const { node } = this.#options
    const { slots } = await this.list()
    return slots.find(
      ({ label, purpose, policy }) =>
        label === wanted && purpose === 'automatic' && isForWard(policy?.config, node),
    )?.keyslot
  }

  /** Opens by one keyslot alone, with `reopen` after closing the vault. */
  async prove(keyslot: number, reopen: boolean, signal: AbortSignal): Promise<void> {
    if (reopen) await this.close()
    const name = await this.#mapping()
    await unlockVault(this.#deps, this.#volume, { keyslot, signal, name, testOnly: !reopen })
    if (reopen) await this.#opened()
  }

  /** See `node-rekey.ts`. */
  async rekey(
    signal: AbortSignal,
    onWay: (way: RekeyedWay, of: number) => void,
  ): Promise<RekeyedWay[]> {
    const change = <T>(act: (deps: VaultDeps, volume: VolumeRef) => Promise<T>) =>
      this.#alone(() => act(this.#deps, this.#volume))
    const { node, enrolment, set } = this.#options
    const policies = { enrolled: enrolment(), current: this.#enrolment, set: set?.() }
    return await rekeyNode({ change, node, ...policies, signal, onWay })
  }

  /** Removes every automatic way that the agent made but one. */
  async drop(keep: number, signal: AbortSignal): Promise<void> {
    await this.#alone(() => resumeVault(this.#deps, this.#volume))
    const { slots } = await this.list()
    for (const { keyslot, purpose, label } of slots) {
      if (keyslot === keep || purpose !== 'automatic' || !isOwnLabel(label)) continue
      await this.#alone(() => unbindVault(this.#deps, this.#volume, keyslot, { signal }))
    }
  }

  /** Carries out an order of one of the three levels; see `vault-end.ts`. */
  async end(level: PanicLevel, command: string): Promise<Receipt | undefined> {
    await this.#options.users?.beforeClose()
    return await endVault(this.#end, level, command)
  }

  /** The receipt of an order that has been carried out. */
  async receiptFor(command: string): Promise<Receipt | undefined> {
    return await receiptFor(this.#end, command)
  }

  /** What an order would destroy and what survives it. */
  async describeEnd(level: PanicLevel): Promise<PanicPlan | undefined> {
    return await describeEnd(this.#end, level)
  }

  get #end(): VaultEnd {
    const enrolment = this.#enrolment
    const recovery = enrolment?.holders === undefined ? undefined : recoveryPolicy(enrolment)
    return { deps: this.#deps, volume: this.#volume, recovery }
  }

  /** Proves every way in, and says how each stands. */
  async rehearse(): Promise<Record<string, unknown>> {
    const { ways, standing } = await rehearseVault(this.#deps, this.#volume)
    const shown = ways.map(({ keyslot, purpose, proof, problem }) => ({
      keyslot,
      purpose,
      state: proof.state,
      ...(problem === undefined ? {} : { problem }),
    }))
    return { ways: shown, standing }
  }

  async list(): Promise<VaultListing> {
    return await listVault(this.#deps, this.#volume)
  }

  /** The holders' ways in; none while there is no readable header. */
  async recoveryWays(): Promise<RecoveryWay[]> {
    try {
      return await recoveryWays(this.#deps, this.#volume)
    } catch (error) {
      if (isFault(error) && error.code in vaultFault.codes) return []
      throw error
    }
  }

  /** Bytes of the device. */
  async size(): Promise<number> {
    const { stdout } = await run('blockdev', ['--getsize64', this.#options.device], {
      accept: [0, 1],
    })
    const bytes = Number(stdout.toString('utf8').trim())
    if (bytes > 0) return bytes
    return (await stat(this.#options.device)).size
  }
}

function probed(found: (LifeEvent & { kind: 'probed' })['found'], text: string) {
  return { kind: 'probed', found, text } as const
}
