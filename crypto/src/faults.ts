import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const cryptoFault = faults({
  'crypto.advertisement_malformed': 'invalid',
  'crypto.advertisement_unsigned': 'integrity',
  'crypto.jwe_malformed': 'invalid',
  'crypto.jwe_too_large': 'invalid',
  'crypto.jwe_unsupported': 'invalid',
  'crypto.jwe_wrong_key': 'integrity',
  'crypto.jwk_malformed': 'invalid',
  'crypto.point_invalid': 'integrity',
  'crypto.self_test_failed': 'internal',
  'crypto.shares_insufficient': 'unavailable',
  'crypto.shares_malformed': 'invalid',
})
