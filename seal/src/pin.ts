import type { JsonObject, Secret } from '@holdfast/base'
import type { AnyJwk, Jwe } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import type { PinPolicy } from './policy.ts'

/** What a pin's sealed form says about itself, without opening it. */
export interface PinFacts {
  /** One line for people: an address, a holder's name. */
  label: string
  /** The key server's address. */
  url?: string
  /** Thumbprint of the key that the secret is sealed to. */
  kid?: string
  /** Keys stored in the sealed form. */
  keys?: { thumbprint: string; crv: string; use: 'exchange' | 'signing' | 'other' }[]
  /** Other members worth showing, public ones only. */
  details?: JsonObject
}

/** Says of a share which set it belongs to, so that a foreign or stale one is told apart. */
export interface ShareMembership {
  /** Random name of the set, base64url of 16 bytes; it stays when the secret is resealed. */
  set: string
  /** Counts the resealings of the set, from 1. */
  generation: number
  /** Position in the set, from 0. */
  index: number
}

/**
 * What a secret is sealed for. People who open it for somebody else compare this with what they were
 * asked for: a sealed secret is public, and whoever has one can show it in the place of another.
 */
export interface SealedUse {
  /** `vault`: a way into a vault; `coordinator`: a data key; `proof`: nothing, a holder's key is tried. */
  purpose: 'vault' | 'coordinator' | 'proof'
  /** Whose: a node's id or a volume's uuid, a cluster's id, a holder's name. */
  of: string
}

/** A public key that the key server at `url` advertised when it was trusted. */
export interface KnownKey {
  readonly url: string
  readonly key: AnyJwk
}

export interface SealOptions {
  /** Public keys from earlier advertisements: a signature by one of them carries trust over. */
  known?: readonly KnownKey[]
  signal?: AbortSignal
  /** Where this secret stands in a threshold: authenticated with it, under `holdfast`. */
  membership?: ShareMembership
  /** Authenticated with the secret and with each of its shares, under `holdfast`. */
  use?: SealedUse
}

/**
 * One way in. Implementations hold no state between calls and what they need from outside is given
 * to their constructor, so that any number of seals and opens may run at once.
 */
export interface Pin {
  /** The clevis pin name: the `pin` member of the protected header. */
  readonly name: string
  /** True when opening needs no network: such pins are never kept waiting for it. */
  readonly local: boolean
  /** True when it opens on the machine that sealed it and nowhere else. */
  readonly machineBound?: boolean
  /** True when opening asks a person; never asked again by itself. */
  readonly interactive: boolean
  /** A short stable name for one configuration; must not contain secrets. */
  label(config: JsonObject): string
  /**
   * Seals to a compact JWE whose protected header carries `clevis.pin`. Must refuse an invalid
   * configuration with seal.policy_invalid and an untrusted server with seal.trust_*.
   */
  seal(plaintext: Secret, config: JsonObject, options: SealOptions): Promise<string>
  /** Opens; must stop at the signal, and must reveal nothing that has not been authenticated. */
  open(jwe: Jwe, signal: AbortSignal): Promise<Secret>
  /** Describes a sealed form without opening it. @throws Fault seal.sealed_malformed */
  inspect(jwe: Jwe): PinFacts
  /** The configuration that would seal to the same way in again. */
  policyOf(jwe: Jwe): PinPolicy
}

/** The pins one program can use. Later pins (`peer`) are added to the list it is made from. */
export interface Pins {
  /** @throws Fault seal.pin_unknown */
  get(name: string): Pin
  readonly names: readonly string[]
}

/** The pins by their names. */
export function pinRegistry(pins: readonly Pin[]): Pins {
  const byName = new Map(pins.map((pin) => [pin.name, pin]))
  return {
    names: [...byName.keys()],
    get: (name) => {
      const pin = byName.get(name)
      if (pin !== undefined) return pin
      throw sealFault('seal.pin_unknown', `there is no pin named "${name.slice(0, 40)}"`, {
        hint: `known pins: ${[...byName.keys(), 'sss'].join(', ')}`,
      })
    },
  }
}
