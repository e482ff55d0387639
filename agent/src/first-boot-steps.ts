import type { Clock } from '@holdfast/base'
import { Canaries, type Touch } from './canaries.ts'
import type { BootStep } from './first-boot.ts'
import { keysPath, type NodeKeys, readKeys } from './identity.ts'
import type { KeySeal } from './key-seal.ts'
import { ServiceTokens, SigningKey } from './node-secrets.ts'

// The steps of this node's first boot, and what they have made.

export interface NodeFirstBootDeps {
  directory: string
  keys: NodeKeys
  /** How the files with private keys are kept. */
  keeping: KeySeal
  clock: Clock
  onTouch: (touch: Touch, path: string) => Promise<void> | void
}

const noVault = 'the vault is not mapped on this machine, so there is no place for them'

export class NodeFirstBoot {
  readonly canaries: Canaries
  readonly #deps: NodeFirstBootDeps
  readonly #signing: SigningKey
  readonly #tokens: ServiceTokens

  constructor(deps: NodeFirstBootDeps) {
    const { directory, keys, keeping, clock, onTouch } = deps
    this.#deps = deps
    this.canaries = new Canaries(directory, onTouch)
    this.#signing = new SigningKey(directory, keys, keeping)
    this.#tokens = new ServiceTokens(keys.node, () => clock.now())
  }

  /** Paths of the services' tokens in the mounted vault. */
  credentials(vault: string, services: readonly string[]): Record<string, string> {
    return Object.fromEntries(services.map((name) => [name, this.#tokens.path(vault, name)]))
  }

  /** Services that have no token in the mounted vault, or one of another signing key. */
  async lacking(vault: string, services: readonly string[]): Promise<readonly string[]> {
    const key = await this.#signing.read()
    return key === undefined ? services : await this.#tokens.lacking(vault, services, key)
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

  /** The keys are sealed when the agent starts and has been given a TPM; here it is only told. */
  #tpmBinding(): BootStep {
    const sealed = this.#deps.keeping.kind === 'tpm'
    return {
      name: 'tpm-binding',
      fixed: 'the keys are sealed at the start of an agent that has a TPM, and stay so',
      check: async () =>
        sealed ? 'kept' : { absent: "no TPM: the node's private keys lie in plain files" },
      make: async () => undefined, // as above
      detail: async () => "the node's private keys open with this machine's TPM alone",
    }
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
