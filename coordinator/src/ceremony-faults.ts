import { faults } from '@holdfast/base'

/** Fault codes of ceremonies; an answer that is refused never changes what others have answered. */
export const ceremonyFault = faults({
  'ceremony.answer_duplicate': 'integrity',
  'ceremony.answer_foreign': 'integrity',
  'ceremony.answer_malformed': 'invalid',
  'ceremony.answer_stale': 'integrity',
  'ceremony.expired': 'refused',
  'ceremony.holder_unknown': 'refused',
  'ceremony.not_needed': 'refused',
  'ceremony.not_open': 'refused',
  'ceremony.not_proven': 'refused',
  'ceremony.request_untrusted': 'integrity',
  'ceremony.share_needed': 'invalid',
  'ceremony.share_wrong': 'integrity',
  'ceremony.signature_invalid': 'integrity',
  'ceremony.superseded': 'integrity',
  'ceremony.too_many_attempts': 'busy',
  'ceremony.unknown': 'absent',
})
