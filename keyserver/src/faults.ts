import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const keyserverFault = faults({
  'keyserver.admin_invalid': 'usage',
  'keyserver.admin_unreachable': 'unavailable',
  'keyserver.backup_foreign': 'integrity',
  'keyserver.backup_malformed': 'invalid',
  'keyserver.backup_unverified': 'integrity',
  'keyserver.change_unfinished': 'refused',
  'keyserver.directory_empty': 'refused',
  'keyserver.directory_not_empty': 'refused',
  'keyserver.directory_unreadable': 'absent',
  'keyserver.directory_unstable': 'busy',
  'keyserver.key_absent': 'absent',
  'keyserver.key_malformed': 'invalid',
  'keyserver.listen_failed': 'unavailable',
  'keyserver.not_running': 'unavailable',
  'keyserver.permissions_loose': 'refused',
  'keyserver.prefix_absent': 'absent',
  'keyserver.prefix_exists': 'refused',
  'keyserver.prefix_invalid': 'usage',
  'keyserver.retire_refused': 'refused',
  'keyserver.self_test_failed': 'integrity',
  'keyserver.worker_failed': 'internal',
})
