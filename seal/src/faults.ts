import { type Fault, faults, isFault, messageOf } from '@holdfast/base'

/** Every fault code of this part. */
export const sealFault = faults({
  'seal.answer_foreign': 'integrity',
  'seal.answer_malformed': 'invalid',
  'seal.holder_absent': 'unavailable',
  'seal.holder_key_weak': 'refused',
  'seal.internal': 'internal',
  'seal.machine_bound': 'refused',
  'seal.passphrase_absent': 'unavailable',
  'seal.passphrase_wrong': 'integrity',
  'seal.pin_timeout': 'unavailable',
  'seal.pin_unknown': 'invalid',
  'seal.placement_impossible': 'refused',
  'seal.policy_invalid': 'invalid',
  'seal.proof_failed': 'refused',
  'seal.request_malformed': 'invalid',
  'seal.sealed_malformed': 'invalid',
  'seal.server_key_unknown': 'refused',
  'seal.server_refused': 'unavailable',
  'seal.server_reply_invalid': 'integrity',
  'seal.server_unreachable': 'unavailable',
  'seal.share_duplicate': 'integrity',
  'seal.share_foreign': 'integrity',
  'seal.share_stale': 'integrity',
  'seal.share_wrong': 'integrity',
  'seal.threshold_not_met': 'unavailable',
  'seal.tpm_failed': 'unavailable',
  'seal.trust_refused': 'refused',
  'seal.trust_required': 'refused',
  'seal.use_foreign': 'integrity',
})

/** Anything thrown, as a fault; what is not one is a defect and says so. */
export function asFault(error: unknown): Fault {
  return isFault(error) ? error : sealFault('seal.internal', messageOf(error), { cause: error })
}
