import { disasters } from './catalogue.ts'
import { type Claims, proveDrills } from './drill-claims.ts'

/** What a drill must have claimed, and found to be so, for its name to be deserved. */
const claims: Claims = {
  'node-stolen': ['the stolen disk no longer opens', 'old keys are destroyed'],
  'planned-outage': ['the old passphrase is dead', 'the node opens by itself'],
  'unplanned-outage': ['the owner types the passphrase meanwhile', 'the node opens by itself'],
  'technician-remote-site': [
    'a stranger cannot read the answer',
    'what the technician had is dead',
  ],
  'keys-carried-to-site': [
    'what was carried does not open it any more',
    'compromised and destroyed',
  ],
  'backup-passphrase': ['the backup passphrase opens it', 'a wrong passphrase is refused'],
  'shared-set-member-killed': ['in the middle of an answer', 'all 60 machines open'],
  'shared-set-lost': ['bound to another server as well opens', 'the disk is untouched'],
  'enrol-degraded': ['the threshold was not lowered', 'has bound the node to 2 of 3'],
  'enrol-offline': ['a foreign advertisement is refused', 'the server it had never talked to'],
  'five-regions': [
    'europe-1 opens without europe',
    'europe-1 without europe and america: stays shut',
  ],
  'server-rebuilt': ['the hidden ones included', 'bound before the rotation opens'],
  'key-exposure': ['names what it could not reach', 'node-4 does not, as the plan had said'],
  'header-destroyed': ['one holder is not enough', 'two holders restore it'],
  'panic-levels': [
    'two holders brought it back after level 2',
    'names the copy it could not reach',
  ],
}

proveDrills('disasters, executed for real', disasters, claims)
