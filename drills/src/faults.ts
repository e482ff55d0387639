import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const drillsFault = faults({
  'drills.check_failed': 'integrity',
  'drills.destruction_refused': 'refused',
  'drills.directory_not_empty': 'refused',
  'drills.interrupted': 'unavailable',
  'drills.not_refused': 'integrity',
  'drills.timed_out': 'unavailable',
  'drills.unknown': 'usage',
})
