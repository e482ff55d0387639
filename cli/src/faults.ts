import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const cliFault = faults({
  'cli.answer_part_missing': 'invalid',
  'cli.config_invalid': 'invalid',
  'cli.confirmation_refused': 'refused',
  'cli.fleet_absent': 'absent',
  'cli.fleet_busy': 'busy',
  'cli.input_absent': 'usage',
  'cli.interrupted': 'unavailable',
  'cli.no_terminal': 'refused',
  'cli.output_failed': 'unavailable',
  'cli.share_malformed': 'invalid',
  'cli.usage': 'usage',
})
