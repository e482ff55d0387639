import { access } from 'node:fs/promises'
import type { Clock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { Canaries, type Touch } from './canaries.ts'
import type { BootStep } from './first-boot.ts'
import { keysPath, type NodeKeys, readKeys } from './identity.ts'
import type { KeySeal } from './key-seal.ts'
import { ServiceTokens, SigningKey } from './node-secrets.ts'
import { TpmBinding } from './tpm-binding.ts'

// The steps of this node's first boot, and what they have made.

export interface NodeFirstBootDeps {
  directory: string
  keys: NodeKeys
  /** How the files with private keys are kept. */
  keeping?: KeySeal
  clock: Clock
  /** TPM2TOOLS_TCTI; without one, the kernel's TPM if there is one. */
  tcti?: string
  onTouch: (touch: Touch, path: string) => Promise<void> | void
}

/** The kernel's TPM, behind its resource manager. */
const tpmDevice = '/dev/tpmrm0'
const noVault = 'the vault is not mapped on this machine, so there is no place for them'

export class NodeFirstBoot {
  readonly canaries: Canaries
  readonly #deps: NodeFirstBootDeps
  readonly #signing: SigningKey
  readonly #tokens: ServiceTokens
  readonly #tpm: TpmBinding

  constructor(deps: NodeFirstBootDeps) {
    const { directory, keys, clock, tcti, onTouch } = deps
    this.#deps = deps
    this.canaries = new Canaries(directory, onTouch)
    this.#signing = new SigningKey(directory, keys)
    this.#tokens = new ServiceTokens(keys.node, () => clock.now())
    this.#tpm = new TpmBinding(directory, keys, createPins(tcti === undefined ? {} : { tcti }))
  }

  /** Paths of the services' tokens in the mounted vault. */
  credentials(vault: string, services: readonly string[]): Record<string, string> {
    return Object.fromEntries(services.map((name) => [name, this.#tokens.path(vault, name)]))
  }

  /** Whether this is the machine that the node was bound to; undefined when it never was. */
  async sameMachine(): Promise<boolean | undefined> {
    const found = await this.#tpm.check()
    return found === 'unbound' ? undefined : found === 'bound'
  }

  /** All steps, for the mounted vault if there is one. */
  steps(vault: string | undefined, services: readonly string[]): BootStep[] {
    return [
      this.#identity(),
      this.#tpmBinding(),
      this.#signingKey(),
      this.#serviceTokens(vault, services),
      this.#canaries(vault),
    ]
  }

  #identity(): BootStep {
    const { directory, keys, keeping } = this.#deps
    return {
      name: 'identity',
      fixed: 'a node with another identity is another node: reset it and enrol it anew',
      check: async () =>
        (await readKeys(keysPath(directory), keeping))?.node === keys.node ? 'kept' : 'missing',
      make: async () => undefined, // it was made before there was an agent to ask; the check says so
    }
  }

  #tpmBinding(): BootStep {
    return {
      name: 'tpm-binding',
      check: async () => {
        if (!(await this.#hasTpm())) return { absent: 'this machine has no TPM' }
        // A binding to another machine is not replaced unasked: that would hide that it was moved.
        const found = await this.#tpm.check()
        return found === 'unbound' ? 'missing' : 'kept'
      },
      make: async (renew) => {
        if (renew) await this.#tpm.drop()
        await this.#tpm.make()
      },
      detail: async () =>
        (await this.#tpm.check()) === 'bound'
          ? 'bound to this machine'
          : 'bound to another machine: find out which, or renew it',
    }
  }

  async #hasTpm(): Promise<boolean> {
    if (this.#deps.tcti !== undefined) return true
    return await access(tpmDevice).then(
      () => true,
      () => false,
    )
  }

  #signingKey(): BootStep {
    return {
      name: 'signing-keys',
      check: async () => ((await this.#signing.read()) === undefined ? 'missing' : 'kept'),
      make: () => this.#signing.make(),
    }
  }

  #serviceTokens(vault: string | undefined, services: readonly string[]): BootStep {
    return {
      name: 'service-tokens',
      check: async () => {
        if (vault === undefined) return { absent: noVault }
        const key = await this.#signing.read()
        return key !== undefined && (await this.#tokens.stand(vault, services, key))
          ? 'kept'
          : 'missing'
      },
      make: async (renew) => {
        const key = await this.#signing.read()
        if (vault !== undefined && key !== undefined)
          await this.#tokens.make(vault, services, key, renew)
      },
      detail: async () => `${services.length} services; a new token is taken at the next start`,
    }
  }

  #canaries(vault: string | undefined): BootStep {
    return {
      name: 'canaries',
      check: async () => ((await this.canaries.stand(vault)) ? 'kept' : 'missing'),
      make: (renew) => this.canaries.make(vault, renew),
      detail: () => this.canaries.describe(),
    }
  }
}
