import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const linkFault = faults({
  'link.address_invalid': 'invalid',
  'link.certificate_invalid': 'integrity',
  'link.code_malformed': 'usage',
  'link.document_invalid': 'integrity',
  'link.enrolment_refused': 'refused',
  'link.enrolment_wrong_code': 'integrity',
  'link.frame_invalid': 'invalid',
  'link.identity_mismatch': 'integrity',
  'link.outbox_full': 'busy',
  'link.pool_invalid': 'invalid',
  'link.reply_invalid': 'invalid',
  'link.reply_malformed': 'invalid',
  'link.session_closed': 'unavailable',
  'link.unreachable': 'unavailable',
  'link.wireguard_failed': 'unavailable',
})
