import { faults } from '@holdfast/base'

/** Fault codes of users, sessions and tokens. */
export const userFault = faults({
  'user.csrf_missing': 'refused',
  'user.forbidden': 'refused',
  'user.locked': 'busy',
  'user.login_refused': 'refused',
  'user.not_signed_in': 'refused',
  'user.origin_refused': 'refused',
  'user.token_unknown': 'absent',
  'user.too_many_requests': 'busy',
  'user.unknown': 'absent',
})
