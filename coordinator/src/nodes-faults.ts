import { faults } from '@holdfast/base'

/** Fault codes of invites, enrolments, nodes and commands. */
export const nodeFault = faults({
  'command.arguments_invalid': 'usage',
  'command.confirmation_needed': 'refused',
  'command.not_waiting_for_approval': 'refused',
  'command.same_person': 'refused',
  'command.unknown': 'absent',
  'enrolment.disk_in_use': 'refused',
  'enrolment.expired': 'unavailable',
  'enrolment.genesis_needed': 'refused',
  'enrolment.name_taken': 'refused',
  'enrolment.no_holders': 'refused',
  'enrolment.node_failed': 'unavailable',
  'enrolment.node_known': 'refused',
  'enrolment.pool_full': 'refused',
  'enrolment.too_many': 'busy',
  'enrolment.unknown': 'absent',
  'invite.expired': 'refused',
  'invite.revoked': 'refused',
  'invite.unknown': 'refused',
  'invite.used_up': 'refused',
  'node.guards_others': 'refused',
  'node.needed': 'refused',
  'node.not_connected': 'unavailable',
  'node.still_here': 'refused',
  'node.unknown': 'absent',
})
