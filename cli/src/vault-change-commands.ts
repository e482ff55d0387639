import type { CommandSpec } from './command.ts'
import {
  accessOptions,
  backupOptions,
  bindingOptions,
  deviceArgument,
  keyslotOption,
  policyArguments,
  policyOptions,
  volumeOptions,
} from './options.ts'

const actions = () => import('./vault-change-actions.ts')

const createCommand: CommandSpec = {
  name: 'create',
  summary: 'format a device as a vault, bound and recoverable from the start',
  about: [
    'Every secret is sealed and proven before the device is touched. A vault needs an automatic way in and a way back: recovery holders, an owner passphrase, or both.',
    'A device that holds anything is refused without --overwrite.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    {
      flags: '--automatic <FILE>',
      says: 'policy file of the automatic way in; required',
      completes: 'file',
    },
    { flags: '--recovery <FILE>', says: 'policy file of the recovery holders', completes: 'file' },
    {
      flags: '--owner-passphrase-file <FILE>',
      says: 'an owner passphrase; - is standard input',
      completes: 'file',
    },
    { flags: '--owner', says: 'ask for an owner passphrase at the terminal' },
    {
      flags: '--size <SIZE>',
      says: 'make DEVICE a sparse file of this size when it does not exist, such as 64M or 2G',
    },
    { flags: '--label <TEXT>', says: 'label of the volume' },
    { flags: '--overwrite', says: 'destroy what is on the device' },
    { flags: '--reachable', says: 'bind the key servers that answer, the rest later' },
    { flags: '--unproven', says: 'accept recovery by holders who are not here to prove it' },
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'a vault in a file, two of three servers, two of three holders',
      run: 'holdfast vault create vault.img --size 64M --automatic servers.json --recovery holders.json --unproven',
    },
  ],
  exits: {
    refused: 'the device holds something, or there is no way back',
    unavailable: 'a key server cannot be reached; the device was not touched',
  },
  related: ['vault rehearse', 'vault header backup'],
  load: async () => (await actions()).createAction,
}

const adoptCommand: CommandSpec = {
  name: 'adopt',
  summary: 'take an existing LUKS2 volume into care, whoever bound it',
  about: [
    'Needs a way in that works. Records in tokens what the keyslots are, adds recovery if asked, and touches no keyslot otherwise. A LUKS1 volume is refused with the command that converts it.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    { flags: '--recovery <FILE>', says: 'add recovery by these holders', completes: 'file' },
    { flags: '--label <TEXT>', says: 'a name for the recovery' },
    { flags: '--unproven', says: 'accept recovery by holders who are not here to prove it' },
    ...accessOptions,
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'adopt a volume that clevis bound, and add holders',
      run: 'holdfast vault adopt /dev/sdb1 --recovery holders.json --unproven',
    },
  ],
  exits: { unavailable: 'no way in works', integrity: 'the passphrase is wrong', refused: 'LUKS1' },
  related: ['vault list', 'vault bind'],
  load: async () => (await actions()).adoptAction,
}

const bindCommand: CommandSpec = {
  name: 'bind',
  summary: 'add a way in: a new keyslot, its passphrase sealed under a policy',
  about: [
    "The new way is proven before it counts. An automatic binding opens with clevis too. With --owner-passphrase-file or --owner a person's passphrase is added instead of a policy.",
    'With --reachable the key servers that answer are bound now, if they meet the threshold, and holdfast vault maintain completes the binding later.',
  ],
  arguments: [deviceArgument, ...policyArguments],
  options: [
    ...volumeOptions,
    ...policyOptions,
    {
      flags: '--purpose <PURPOSE>',
      says: 'what the way in is for',
      choices: ['automatic', 'recovery'],
      default: 'automatic',
    },
    {
      flags: '--owner-passphrase-file <FILE>',
      says: "add this passphrase as the owner's; - is standard input",
      completes: 'file',
    },
    { flags: '--owner', says: 'ask for a new owner passphrase at the terminal' },
    keyslotOption,
    { flags: '--token <NUMBER>', says: 'number of the LUKS2 token, 0 to 31' },
    { flags: '--label <TEXT>', says: 'a name for the way in' },
    { flags: '--reachable', says: 'bind the key servers that answer, the rest later' },
    { flags: '--unproven', says: 'accept what only people who are not here could prove' },
    ...accessOptions,
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'two of three key servers',
      run: 'holdfast vault bind /dev/sdb1 --policy servers.json --passphrase-file passphrase',
    },
    {
      says: 'recovery by holders who are not here',
      run: 'holdfast vault bind /dev/sdb1 --policy holders.json --purpose recovery --unproven --passphrase-file passphrase',
    },
  ],
  exits: {
    refused:
      'no room in the header, a key server is not trusted, or the new way could not be proven',
    unavailable: 'the volume does not open, or a key server cannot be reached',
    integrity: 'the passphrase is wrong',
  },
  related: ['vault list', 'vault rehearse', 'vault unbind'],
  load: async () => (await actions()).bindAction,
}

const regenCommand: CommandSpec = {
  name: 'regen',
  summary: "replace a binding's passphrase: same policy, newest keys, old passphrase dead",
  about: [
    'Add, prove, remove, in that order. A rotated key server is trusted when a key the binding knows signed its advertisement.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    keyslotOption,
    { flags: '--unproven', says: 'accept what only people who are not here could prove' },
    ...accessOptions,
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [{ says: 'after a rotation', run: 'holdfast vault regen /dev/sdb1 --keyslot 1' }],
  exits: {
    refused: 'the new way could not be proven; nothing was removed',
    unavailable: 'a key server cannot be reached; nothing was changed',
  },
  related: ['vault report', 'vault rekey', 'keyserver rotate'],
  load: async () => (await actions()).regenAction,
}

const editCommand: CommandSpec = {
  name: 'edit',
  summary: 'give a binding another policy',
  arguments: [deviceArgument, ...policyArguments],
  options: [
    ...volumeOptions,
    ...policyOptions,
    keyslotOption,
    { flags: '--label <TEXT>', says: 'a name for the way in' },
    { flags: '--reachable', says: 'bind the key servers that answer, the rest later' },
    { flags: '--unproven', says: 'accept what only people who are not here could prove' },
    { flags: '--force', says: 'do it even when the policy stays the same' },
    ...accessOptions,
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'from one server to two of three',
      run: 'holdfast vault edit /dev/sdb1 --keyslot 1 --policy servers.json --force',
    },
  ],
  exits: {
    refused: 'the policy is the same, there is no room, or the new way could not be proven',
    unavailable: 'a key server cannot be reached; nothing was changed',
  },
  related: ['vault regen', 'vault list'],
  load: async () => (await actions()).editAction,
}

const unbindCommand: CommandSpec = {
  name: 'unbind',
  summary: 'remove one way in and its keyslot',
  about: [
    'Something that remains must be proven first. The last way in of all is never removed, the last automatic or recovery one only with --force; foreign slots never.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    keyslotOption,
    { flags: '--force', says: 'remove the last automatic, or the last recovery, way in' },
    ...accessOptions,
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'remove a binding',
      run: 'holdfast vault unbind /dev/sdb1 --keyslot 1 --force --passphrase-file passphrase',
    },
  ],
  exits: { refused: 'it is the last way in, or foreign', absent: 'no such keyslot' },
  related: ['vault list'],
  load: async () => (await actions()).unbindAction,
}

const rekeyCommand: CommandSpec = {
  name: 'rekey',
  summary: 'rekey many volumes, a few at a time, and list what could not be',
  about: [
    'Each volume is its own transaction; a failure stops nothing and is listed. Progress is durable: a second run under the same --id goes on where the first stopped.',
    'New keys are accepted because the old ones signed them. After an exposure of keys that proves nothing: use holdfast exposure instead.',
  ],
  arguments: [{ ...deviceArgument, repeat: true, optional: true }],
  options: [
    { flags: '--devices <FILE>', says: 'more devices, one a line', completes: 'file' },
    {
      flags: '--affected <KID>',
      says: 'only bindings that store a key with this thumbprint',
      repeat: true,
    },
    { flags: '--id <NAME>', says: 'names this piece of work', default: 'rekey' },
    { flags: '--concurrency <COUNT>', says: 'volumes at a time', default: '4' },
    ...bindingOptions,
    ...backupOptions,
  ],
  examples: [
    {
      says: 'after a rotation, everything bound to one key',
      run: 'holdfast vault rekey /dev/sdb1 /dev/sdc1 --affected KID1 --id autumn',
    },
  ],
  exits: { unavailable: 'a volume could not be rekeyed; the answer lists it' },
  related: ['vault report', 'exposure', 'keyserver rotate', 'keyserver retire'],
  load: async () => (await actions()).rekeyAction,
}

const maintainCommand: CommandSpec = {
  name: 'maintain',
  summary: 'do what was left for later; safe at any time',
  about: [
    'Settles a crashed change, replaces passphrases that were shown, completes bindings that were made with a part of their key servers. What cannot be done yet stays noted.',
  ],
  arguments: [deviceArgument],
  options: [...volumeOptions, ...bindingOptions, ...backupOptions],
  examples: [
    { says: 'from a timer, when the network is back', run: 'holdfast vault maintain /dev/sdb1' },
  ],
  exits: { unavailable: 'something still waits; the answer says what for' },
  related: ['vault pass', 'vault regen'],
  load: async () => (await actions()).maintainAction,
}

/** The commands that change a volume's ways in. */
export const vaultChangeCommands: readonly CommandSpec[] = [
  createCommand,
  adoptCommand,
  bindCommand,
  regenCommand,
  editCommand,
  unbindCommand,
  rekeyCommand,
  maintainCommand,
]
