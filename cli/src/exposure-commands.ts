import type { CommandSpec } from './command.ts'
import { backupOptions, bindingOptions, deviceArgument } from './options.ts'

/** `holdfast exposure` */
export const exposureCommand: CommandSpec = {
  name: 'exposure',
  summary: 'answer an exposure of key server keys, as one plan',
  about: [
    'Key material may be known to others: a server, a backup or a disk with keys is missing. One plan: mark the keys, rotate them, move every volume to the new keys, prove that each opens without the old ones, destroy the old ones, and list what could not be reached. The new signing keys are read at the servers themselves, because a signature by an exposed key proves nothing.',
    'It can be run again under the same --id until nothing is left. Destroying keys is refused while that would take the last automatic way from a volume that cannot be reached.',
    'Rekeying does not help against a copy of a disk that was made before: a volume whose disk was copied must be reencrypted.',
  ],
  arguments: [{ ...deviceArgument, repeat: true, optional: true }],
  options: [
    {
      flags: '--server <URL=PLACE>',
      says: 'an exposed server: the address that bindings name, and its key directory or administration socket; required',
      repeat: true,
    },
    { flags: '--devices <FILE>', says: 'more devices, one a line', completes: 'file' },
    { flags: '--id <NAME>', says: 'names this incident', default: 'exposure' },
    { flags: '--note <TEXT>', says: "why, for the servers' records", default: 'keys exposed' },
    { flags: '--plan', says: 'only show the plan; nothing is changed' },
    { flags: '--strand', says: 'destroy the keys although volumes lose their last automatic way' },
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'what would be done?',
      run: 'holdfast exposure /dev/sdb1 --server http://tang1.example.com=admin.sock --plan',
    },
    {
      says: 'do it',
      run: 'holdfast exposure /dev/sdb1 --server http://tang1.example.com=admin.sock --id tape-12 --note "tape 12 is missing"',
    },
  ],
  exits: {
    refused: 'destroying the keys would strand a volume; everything before that is done',
    unavailable: 'volumes that are bound to the keys could not be reached; the answer lists them',
  },
  related: ['keyserver compromise', 'keyserver rotate', 'vault rekey'],
  load: async () => (await import('./exposure-actions.ts')).exposureAction,
}
