import type { ArgumentSpec, CommandSpec } from './command.ts'
import { placeOptions, storeOption } from './coordinator-options.ts'

const actions = () => import('./coordinator-key-actions.ts')

const wayArgument: ArgumentSpec = { name: 'ID', says: 'the way, as ways list shows it' }
const bundleArgument: ArgumentSpec = {
  name: 'BUNDLE',
  says: 'the backup; - is standard input',
  completes: 'file',
}
const pinOption = {
  flags: '--identity <DIGEST>',
  says: 'who must have signed it; default the coordinator that was logged in to',
}

const waysCommand: CommandSpec = {
  name: 'ways',
  summary: 'the ways to the data key, each independent of the others',
  examples: [{ says: 'which are there?', run: 'holdfast coordinator ways list' }],
  children: [
    {
      name: 'list',
      summary: 'list the ways and when each was last proven',
      options: placeOptions,
      examples: [{ says: 'which are there?', run: 'holdfast coordinator ways list' }],
      exits: { refused: 'this needs the role admin or auditor' },
      related: ['coordinator ways prove'],
      load: async () => (await actions()).waysListAction,
    },
    {
      name: 'add',
      summary: 'add an automatic way; it is proven before it counts',
      arguments: [
        { name: 'KIND', says: 'what opens the data key', choices: ['host-key', 'tpm2', 'tang'] },
        {
          name: 'CONFIG',
          says: "the pin's configuration: JSON, @FILE, or - for standard input; default {}",
          optional: true,
          completes: 'file',
        },
      ],
      options: placeOptions,
      examples: [
        { says: 'a key server', run: 'holdfast coordinator ways add tang @tang-way.json' },
      ],
      exits: { unavailable: 'the key server or TPM does not answer' },
      related: ['coordinator ways list'],
      load: async () => (await actions()).waysAddAction,
    },
    {
      name: 'prove',
      summary: 'open the data key once through this way',
      arguments: [wayArgument],
      options: placeOptions,
      examples: [
        {
          says: 'prove the first',
          run: 'holdfast coordinator ways prove $(holdfast coordinator ways list --json | jq -r \'.[] | select(.kind == "host-key").id\')',
        },
      ],
      exits: { unavailable: 'it does not open', absent: 'there is no such way' },
      related: ['coordinator ways list'],
      load: async () => (await actions()).waysProveAction,
    },
    {
      name: 'remove',
      summary: 'remove a way; never the last',
      arguments: [wayArgument],
      options: placeOptions,
      examples: [
        {
          says: 'let only people open it',
          run: 'holdfast coordinator ways remove $(holdfast coordinator ways list --json | jq -r \'.[] | select(.kind == "host-key").id\')',
        },
      ],
      exits: { refused: 'it is the last way', absent: 'there is no such way' },
      related: ['coordinator ways add'],
      load: async () => (await actions()).waysRemoveAction,
    },
  ],
}

/** Everything about the data key and its backups. */
export const coordinatorKeyCommands: readonly CommandSpec[] = [
  waysCommand,
  {
    name: 'rotate',
    summary: 'replace the data key; secrets are encrypted anew in one step',
    options: placeOptions,
    examples: [{ says: 'after somebody left', run: 'holdfast coordinator rotate' }],
    exits: { refused: 'this needs the role admin, or a way would be left behind' },
    related: ['coordinator backup', 'coordinator ways list'],
    load: async () => (await actions()).rotateAction,
  },
  {
    name: 'backup',
    summary: 'write a signed backup, and check it as verify-backup does',
    about: ['Secrets in it stay encrypted: who has the file needs the holders, too.'],
    options: [
      { flags: '--out <FILE>', says: 'where the backup goes; required', completes: 'file' },
      ...placeOptions,
    ],
    examples: [{ says: 'every night', run: 'holdfast coordinator backup --out fleet.backup' }],
    exits: { refused: 'this needs the role admin' },
    related: ['coordinator verify-backup', 'coordinator restore'],
    load: async () => (await actions()).backupAction,
  },
  {
    name: 'verify-backup',
    summary: 'check a backup offline, without any secret',
    arguments: [bundleArgument],
    options: [pinOption],
    examples: [
      { says: 'is it whole?', run: 'holdfast coordinator verify-backup coordinator.backup' },
    ],
    exits: { integrity: 'it is damaged, altered, or of another coordinator' },
    related: ['coordinator restore'],
    load: async () => (await actions()).verifyBackupAction,
  },
  {
    name: 'restore',
    summary: 'put a backup into an empty directory; it starts in recovery',
    arguments: [bundleArgument],
    options: [
      {
        flags: '--directory <DIR>',
        says: 'the directory of the new coordinator, empty; required',
        completes: 'directory',
      },
      storeOption,
      pinOption,
    ],
    examples: [
      {
        says: 'on a new machine',
        run: 'holdfast coordinator restore coordinator.backup --directory restored',
      },
      {
        says: 'from what another program gives',
        run: 'cat coordinator.backup | holdfast coordinator restore - --directory from-elsewhere',
      },
    ],
    exits: { refused: 'the directory or database is not empty', integrity: 'it is damaged' },
    related: ['coordinator serve', 'coordinator recover'],
    load: async () => (await actions()).restoreAction,
  },
]
