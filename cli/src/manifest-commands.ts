import type { ArgumentSpec, CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'

const actions = () => import('./manifest-actions.ts')

const fileArgument: ArgumentSpec = {
  name: 'FILE',
  says: 'the manifest, JSON; a key written as @FILE is read from beside it; - is standard input',
  completes: 'file',
}

/** `holdfast manifest` */
export const manifestCommand: CommandSpec = {
  name: 'manifest',
  summary: 'what the fleet has agreed on: holders, users, rules, services',
  about: [
    'A manifest is strict: an unknown word is refused. Holders have RSA keys of at least 3072 bits, all different; that there is no recovery must be said in these words: {"none": "there will be no recovery"}.',
    'The first one is set by whoever claimed the coordinator, and counts once enough holders have proven their keys. Later ones need the approval of holders, over the digest.',
  ],
  examples: [{ says: 'is this one valid?', run: 'holdfast manifest verify manifest.json' }],
  children: [
    {
      name: 'set',
      summary: 'set the manifest, or propose a changed one to the holders',
      arguments: [fileArgument],
      options: placeOptions,
      examples: [{ says: 'propose it', run: 'holdfast manifest set manifest.json' }],
      exits: {
        invalid: 'the manifest is not valid; each problem is named with its place',
        refused: 'this needs the role admin',
      },
      related: ['manifest diff', 'holder answer', 'coordinator status'],
      load: async () => (await actions()).setAction,
    },
    {
      name: 'get',
      summary: 'print the manifest in force',
      options: placeOptions,
      examples: [{ says: 'keep a copy', run: 'holdfast manifest get > current.json' }],
      exits: { refused: 'no manifest is in force, or nobody is logged in' },
      related: ['manifest history'],
      load: async () => (await actions()).getAction,
    },
    {
      name: 'verify',
      summary: 'check a manifest file and print its digest; asks no coordinator',
      arguments: [fileArgument],
      options: [
        {
          flags: '--digest <DIGEST>',
          says: 'fail unless it has this digest, such as that of a ceremony',
        },
      ],
      examples: [{ says: 'before approving', run: 'holdfast manifest verify manifest.json' }],
      exits: { invalid: 'it is not valid', integrity: 'it has another digest' },
      related: ['manifest diff', 'holder answer'],
      load: async () => (await actions()).verifyAction,
    },
    {
      name: 'diff',
      summary: 'show what a manifest would change, and how many must approve',
      arguments: [fileArgument],
      options: placeOptions,
      examples: [{ says: 'compare', run: 'holdfast manifest diff manifest.json' }],
      exits: { invalid: 'it is not valid' },
      related: ['manifest set'],
      load: async () => (await actions()).diffAction,
    },
    {
      name: 'history',
      summary: 'list every manifest that was in force and who approved it',
      options: placeOptions,
      examples: [{ says: 'who changed it?', run: 'holdfast manifest history' }],
      exits: { refused: 'this needs the role admin or auditor' },
      related: ['audit list'],
      load: async () => (await actions()).historyAction,
    },
  ],
}
