import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const cliFault = faults({
  'cli.answer_part_missing': 'invalid',
  'cli.backup_absent': 'absent',
  'cli.config_invalid': 'invalid',
  'cli.confirmation_refused': 'refused',
  'cli.coordinator_unknown': 'absent',
  'cli.digest_differs': 'integrity',
  'cli.directory_unsafe': 'refused',
  'cli.file_exists': 'refused',
  'cli.fleet_absent': 'absent',
  'cli.fleet_busy': 'busy',
  'cli.holders_unknown': 'refused',
  'cli.holder_key_unfit': 'refused',
  'cli.identity_unconfirmed': 'refused',
  'cli.input_absent': 'usage',
  'cli.internal': 'internal',
  'cli.interrupted': 'unavailable',
  'cli.no_terminal': 'refused',
  'cli.output_failed': 'unavailable',
  'cli.share_malformed': 'invalid',
  'cli.usage': 'usage',
  'cli.volume_unknown': 'absent',
})
