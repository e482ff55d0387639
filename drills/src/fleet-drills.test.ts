import { type Claims, proveDrills } from './drill-claims.ts'
import { fleetDrills } from './fleet-catalogue.ts'

const claims: Claims = {
  'genesis-to-peers': [
    'nobody comes first by accident',
    'killed with its memory intact',
    'after a power cut it does not',
    'one holder does not open it',
    'two holders open it',
    'the temporary way is gone',
    'the next power cut needs no people',
  ],
  'node-reboots': [
    'with one guardian of the two it needs it stays shut',
    'with two it opens',
    'with all three it opens',
    'it opens while the coordinator is gone',
  ],
  'fleet-cold-start': [
    'the first to be back waits',
    'every node is open',
    'the coordinator opens by its host key',
  ],
  'token-raced': [
    'exactly one wins',
    'the other machine has not been touched',
    'the token is refused a second time',
    'gives the use of its invite back',
  ],
  'disk-cloned': [
    'not formatted by another machine',
    'held by the guardians',
    'they raise an alarm at once',
    'two are alive',
    'its guardians refuse it as frozen',
    'the original runs on',
  ],
  'stolen-node-frozen': [
    'started by its thief it stays locked',
    'the guardians tell who asked',
    'found again and released',
  ],
  'clock-at-1970': [
    'told that it is 1970',
    'after a power cut it opens',
    'does not open without it',
    'with it as a guardian it does',
  ],
  'node-leaves': [
    'a node that is not needed leaves',
    'everybody it guarded has other guardians',
    'its vault is destroyed',
    'at the margin nobody may leave',
  ],
  'reset-while-locked': [
    'it is locked, and connected',
    'locked as it is, it is reset',
    'its keyslots are destroyed',
    'they forget it',
  ],
  'old-backup-restored': ['two holders open it', 'and it stops', 'it goes on above that'],
}

proveDrills('nodes and their guardians, for real', fleetDrills, claims)
