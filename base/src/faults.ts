import { faults } from './fault.ts'

/** Every fault code of this part. */
export const baseFault = faults({
  'base.bad_encoding': 'invalid',
  'base.bad_json': 'invalid',
  'base.file_absent': 'absent',
  'base.file_too_large': 'invalid',
  'base.file_unreadable': 'absent',
  'base.locked': 'busy',
  'base.program_failed': 'internal',
  'base.program_missing': 'absent',
  'base.program_timeout': 'unavailable',
  'base.record_damaged': 'integrity',
  'base.secret_disposed': 'internal',
})
