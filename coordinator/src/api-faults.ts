import { faults } from '@holdfast/base'

/** Fault codes of the API itself, before and around what a route does. */
export const apiFault = faults({
  'api.body_too_large': 'invalid',
  'api.internal': 'internal',
  'api.no_such_route': 'absent',
  'api.request_invalid': 'invalid',
})
