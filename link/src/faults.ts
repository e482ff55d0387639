import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const linkFault = faults({
  'link.certificate_invalid': 'integrity',
  'link.frame_invalid': 'invalid',
  'link.identity_mismatch': 'integrity',
  'link.session_closed': 'unavailable',
  'link.wireguard_failed': 'unavailable',
})
