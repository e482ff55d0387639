import { createFetch, type Fetch } from './http.ts'
import { nullPin } from './null.ts'
import { type AskPassphrase, passphrasePin } from './passphrase.ts'
import { type Holders, personPin } from './person.ts'
import { type Pin, type Pins, pinRegistry } from './pin.ts'
import { tangPin } from './tang.ts'
import type { ConfirmTrust } from './tang-trust.ts'
import { tpm2Pin } from './tpm2.ts'

/** What the built-in pins may use; each is optional and its absence makes that pin refuse, not guess. */
export interface PinSources {
  fetch?: Fetch
  /** Interactive trust on first use; without it a key server must be pinned. */
  confirm?: ConfirmTrust
  holders?: Holders
  passphrase?: AskPassphrase
  /** TPM2TOOLS_TCTI for tpm2-tools; default is theirs. */
  tcti?: string
  /** Pins of other parts, such as `peer`. */
  extra?: readonly Pin[]
}

/** The registry of all built-in pins and the extra ones. */
export function createPins(sources: PinSources = {}): Pins {
  const { fetch = createFetch(), confirm, holders, passphrase, tcti, extra = [] } = sources
  return pinRegistry([
    tangPin({ fetch, ...(confirm === undefined ? {} : { confirm }) }),
    tpm2Pin(tcti === undefined ? {} : { tcti }),
    nullPin(),
    passphrasePin(passphrase),
    personPin(holders),
    ...extra,
  ])
}
