import type { CommandSpec } from './command.ts'
import {
  accessOptions,
  bindingOptions,
  deviceArgument,
  keyslotOption,
  volumeOptions,
} from './options.ts'
import { vaultChangeCommands } from './vault-change-commands.ts'
import { vaultRecoveryCommands } from './vault-recovery-commands.ts'

const reading = () => import('./vault-read-actions.ts')

const unlockCommand: CommandSpec = {
  name: 'unlock',
  summary: 'open a volume by whichever way in answers first',
  about: [
    'All automatic bindings start at once; the first whose passphrase opens its keyslot wins. The volume is mapped as /dev/mapper/NAME. Where the kernel has no device-mapper the passphrase is proven at the real keyslot instead, and the answer says that nothing was mapped.',
    'With --retry key servers are asked again for ever; at a terminal a passphrase may be typed meanwhile.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    ...accessOptions,
    ...bindingOptions,
    { flags: '--name <NAME>', says: 'name of the mapping; default luks-UUID' },
    { flags: '--test', says: 'only prove that it opens' },
    { flags: '--retry', says: 'ask key servers again for ever, with growing jittered waits' },
    { flags: '--recovery', says: 'let recovery holders open it too' },
    keyslotOption,
  ],
  examples: [
    { says: 'open it', run: 'holdfast vault unlock /dev/sdb1 --name data' },
    {
      says: 'two holders open it',
      run: 'holdfast vault unlock /dev/sdb1 --test --recovery --holder-key alice=alice.key --holder-key bob=bob.key',
    },
  ],
  exits: {
    unavailable: 'no way in opened; the message names each and why',
    absent: 'no LUKS2 volume',
  },
  related: ['vault rehearse', 'vault list'],
  load: async () => (await reading()).unlockAction,
}

const passCommand: CommandSpec = {
  name: 'pass',
  summary: "print a binding's passphrase, for a technician without network",
  about: [
    'Audited, and the slot is marked: holdfast vault maintain (or regen) replaces the passphrase when the network is back, and the printed one is dead from then on.',
  ],
  arguments: [deviceArgument],
  options: [...volumeOptions, ...bindingOptions, keyslotOption],
  examples: [{ says: 'print it', run: 'holdfast vault pass /dev/sdb1 --keyslot 1' }],
  exits: { absent: 'no such keyslot', refused: 'the keyslot has no binding' },
  related: ['vault regen', 'vault maintain', 'vault export-request'],
  load: async () => (await reading()).passAction,
}

const listCommand: CommandSpec = {
  name: 'list',
  summary: "list a volume's ways in, their owners and last proofs",
  about: [
    'Reads the header only. Slots that Holdfast did not write are foreign and never removed.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    { flags: '--clevis', says: 'print the lines that clevis luks list prints' },
    { flags: '--kids', says: 'print the thumbprints of the exchange keys that bindings need' },
  ],
  examples: [
    { says: 'list them', run: 'holdfast vault list /dev/sdb1' },
    {
      says: 'what a key server must keep',
      run: 'holdfast vault list /dev/sdb1 --kids > needed.txt',
    },
  ],
  exits: { absent: 'no LUKS2 volume' },
  related: ['vault report', 'vault rehearse'],
  load: async () => (await reading()).listAction,
}

const reportCommand: CommandSpec = {
  name: 'report',
  summary: 'compare stored keys with what the key servers advertise now',
  about: [
    'current: every stored key is still advertised; rotated: regenerate the binding; untrusted: what answers is not vouched for by a key the binding knows.',
  ],
  arguments: [deviceArgument],
  options: [...volumeOptions, keyslotOption],
  examples: [{ says: 'has anything been rotated?', run: 'holdfast vault report /dev/sdb1' }],
  exits: {
    integrity: 'a server has rotated its keys, or is not the trusted one',
    unavailable: 'a server cannot be reached',
  },
  related: ['vault regen', 'vault rekey'],
  load: async () => (await reading()).reportAction,
}

const rehearseCommand: CommandSpec = {
  name: 'rehearse',
  summary: 'prove every way in at its real keyslot, and reveal nothing',
  about: [
    'Every pin is exercised, then the opened passphrase is proven at its keyslot. Holders are asked only when their key or share is given. The proofs are recorded with their time.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    ...accessOptions,
    ...bindingOptions,
    { flags: '--people', says: 'ask people at the terminal too' },
  ],
  examples: [
    { says: 'prove the key servers', run: 'holdfast vault rehearse /dev/sdb1' },
    {
      says: 'prove two holders too',
      run: 'holdfast vault rehearse /dev/sdb1 --holder-key alice=alice.key --holder-key bob=bob.key',
    },
  ],
  exits: { unavailable: 'a way in that was tried does not open' },
  related: ['vault list', 'rehearse'],
  load: async () => (await reading()).rehearseAction,
}

/** `holdfast vault` */
export const vaultCommand: CommandSpec = {
  name: 'vault',
  summary: 'LUKS2 volumes: ways in, proofs, header backups, recovery, panic',
  about: [
    'At least one automatic and one recovery way in, both proven, before and after every change. Adding comes first, then the proof, then the removal; every step is journalled and resumes after a kill.',
  ],
  examples: [{ says: 'how does a volume stand?', run: 'holdfast vault list /dev/sdb1' }],
  children: [
    ...vaultChangeCommands,
    unlockCommand,
    passCommand,
    listCommand,
    reportCommand,
    rehearseCommand,
    ...vaultRecoveryCommands,
  ],
}
