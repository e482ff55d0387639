import { faults } from '@holdfast/base'

/** Every fault code of this part. */
export const agentFault = faults({
  'agent.already_started': 'refused',
  'agent.enrolment_refused': 'refused',
  'agent.guardian_frozen': 'refused',
  'agent.guardian_held': 'unavailable',
  'agent.guardian_lied': 'integrity',
  'agent.guardian_rate': 'refused',
  'agent.guardian_refused': 'refused',
  'agent.guardian_reply_invalid': 'integrity',
  'agent.guardian_source': 'refused',
  'agent.guardian_unreachable': 'unavailable',
  'agent.identity_absent': 'absent',
  'agent.identity_damaged': 'integrity',
  'agent.log_damaged': 'integrity',
  'agent.nonce_invalid': 'refused',
  'agent.peer_policy_invalid': 'invalid',
  'agent.peer_sealed_malformed': 'invalid',
  'agent.request_malformed': 'invalid',
  'agent.signature_invalid': 'refused',
  'agent.state_absent': 'integrity',
  'agent.state_damaged': 'integrity',
  'agent.state_foreign': 'integrity',
  'agent.ward_key_absent': 'absent',
  'agent.ward_stale': 'refused',
  'agent.ward_unknown': 'refused',
})
