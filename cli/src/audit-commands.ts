import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'

const actions = () => import('./audit-actions.ts')

/** `holdfast audit` */
export const auditCommand: CommandSpec = {
  name: 'audit',
  summary: "the coordinator's hash-chained audit log",
  examples: [{ says: 'is it unbroken?', run: 'holdfast audit verify' }],
  children: [
    {
      name: 'list',
      summary: 'list entries, oldest first',
      about: [
        'Every change, recovery step, reading of a secret, refusal and failure has an entry. Keep the head of the chain elsewhere: whoever has it can tell whether the log was cut or rewritten.',
      ],
      options: [
        { flags: '--after <NUMBER>', says: 'start after this entry', default: '0' },
        { flags: '--limit <COUNT>', says: 'at most so many entries, 1 to 1000', default: '200' },
        ...placeOptions,
      ],
      examples: [{ says: 'the first twenty', run: 'holdfast audit list --limit 20' }],
      exits: { refused: 'this needs the role admin or auditor' },
      related: ['audit verify'],
      load: async () => (await actions()).listAction,
    },
    {
      name: 'verify',
      summary: 'let the coordinator check the chain from end to end',
      options: placeOptions,
      examples: [{ says: 'check it', run: 'holdfast audit verify' }],
      exits: { integrity: 'the chain is broken: entries were altered or removed' },
      related: ['audit list', 'coordinator verify-backup'],
      load: async () => (await actions()).verifyAction,
    },
  ],
}
