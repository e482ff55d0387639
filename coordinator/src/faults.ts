import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const coordinatorFault = faults({
  'coordinator.already_claimed': 'refused',
  'coordinator.backup_damaged': 'integrity',
  'coordinator.backup_foreign': 'integrity',
  'coordinator.changed_meanwhile': 'busy',
  'coordinator.claim_refused': 'refused',
  'coordinator.data_key_sealed': 'unavailable',
  'coordinator.header_invalid': 'integrity',
  'coordinator.identity_absent': 'absent',
  'coordinator.join_refused': 'refused',
  'coordinator.last_way': 'refused',
  'coordinator.listen_failed': 'unavailable',
  'coordinator.manifest_invalid': 'invalid',
  'coordinator.not_in_this_state': 'refused',
  'coordinator.not_empty': 'refused',
  'coordinator.row_unreadable': 'integrity',
  'coordinator.sink_invalid': 'invalid',
  'coordinator.storage_missing': 'absent',
  'coordinator.storage_newer': 'refused',
  'coordinator.storage_unreachable': 'unavailable',
  'coordinator.tpm_failed': 'unavailable',
  'coordinator.way_of_holders': 'refused',
  'coordinator.way_unknown': 'absent',
  'coordinator.way_unproven': 'refused',
})
