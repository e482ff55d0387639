import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'
import { nodeArgument, orderExits, orderOptions } from './node-options.ts'

const actions = () => import('./node-command-actions.ts')
const serviceArgument = { name: 'SERVICE', says: 'its name, as the manifest has it' }

/** What a node is told to do, again and again. */
export const nodeChangeCommands: readonly CommandSpec[] = [
  {
    name: 'services',
    summary: 'the services of a node and how they stand',
    arguments: [nodeArgument],
    options: orderOptions,
    examples: [{ says: 'which are down?', run: 'holdfast node services node-1' }],
    exits: { ...orderExits, unavailable: 'a service has failed, or the node does not answer' },
    related: ['node restart', 'node logs'],
    load: async () => (await actions()).servicesAction,
  },
  {
    name: 'restart',
    summary: 'restart one service of a node',
    arguments: [nodeArgument, serviceArgument],
    options: orderOptions,
    examples: [{ says: 'one service', run: 'holdfast node restart node-1 web' }],
    exits: { ...orderExits, unavailable: 'the service does not run, or the node does not answer' },
    related: ['node services', 'node logs'],
    load: async () => (await actions()).restartAction,
  },
  {
    name: 'logs',
    summary: 'the last lines of the log of a service, or of the agent',
    about: [
      'Each line has its time, its level where the program says one, the service, and the text; --json gives the lines as the node has them.',
      'With --follow the node is asked every few seconds; each look is a command of its own.',
    ],
    arguments: [nodeArgument, { ...serviceArgument, optional: true }],
    options: [
      { flags: '--lines <NUMBER>', says: 'how many of the last lines, 1 to 2000', default: '200' },
      { flags: '--since <MINUTES>', says: 'only lines of the last minutes' },
      { flags: '--follow', says: 'go on until Ctrl-C, with what comes' },
      ...orderOptions,
    ],
    examples: [{ says: 'the agent itself', run: 'holdfast node logs node-1 --lines 50' }],
    exits: orderExits,
    related: ['node services', 'node show'],
    load: async () => (await actions()).logsAction,
  },
  {
    name: 'reboot',
    summary: 'reboot a node and see it come back',
    about: [
      'It is refused when another node would fall below its threshold plus margin meanwhile.',
    ],
    arguments: [nodeArgument],
    options: [
      { flags: '--force', says: 'although others need it, or services do not stop in time' },
      ...orderOptions,
    ],
    examples: [{ says: 'and wait until it is open again', run: 'holdfast node reboot node-1' }],
    exits: { ...orderExits, refused: 'others need it as a guardian right now' },
    related: ['node status', 'node unlock'],
    load: async () => (await actions()).rebootAction,
  },
  {
    name: 'rehearse',
    summary: 'prove every way into the vault of a node, and the share of every guardian',
    arguments: [nodeArgument],
    options: orderOptions,
    examples: [{ says: 'would it come back?', run: 'holdfast node rehearse node-1' }],
    exits: { ...orderExits, unavailable: 'a way in failed, or the node does not answer' },
    related: ['node show', 'node rekey'],
    load: async () => (await actions()).rehearseAction,
  },
  {
    name: 'rekey',
    summary: 'give every way in that the agent owns a new passphrase',
    about: [
      'Each new passphrase is proven before its old keyslot goes. After a change of holders their way in is sealed for the new ones, so that those who have left cannot open the vault any more.',
    ],
    arguments: [nodeArgument],
    options: orderOptions,
    examples: [
      { says: 'after a disk was copied, or a holder has left', run: 'holdfast node rekey node-1' },
    ],
    exits: orderExits,
    related: ['node rehearse'],
    load: async () => (await actions()).rekeyAction,
  },
  {
    name: 'first-boot',
    summary: 'run the steps of the first boot again; each does only what is missing',
    arguments: [nodeArgument],
    options: [
      {
        flags: '--renew <STEP>',
        says: "make this step's things anew: identity, tpm-binding, signing-keys, service-tokens, canaries",
        repeat: true,
      },
      ...orderOptions,
    ],
    examples: [{ says: 'new canaries', run: 'holdfast node first-boot node-1 --renew canaries' }],
    exits: orderExits,
    related: ['node panic'],
    load: async () => (await actions()).firstBootAction,
  },
  {
    name: 'freeze',
    summary: 'no guardian releases a share to this node any more, as when it was stolen',
    arguments: [nodeArgument],
    options: [
      { flags: '--reason <TEXT>', says: 'why, for the audit log and its guardians; required' },
      ...placeOptions,
    ],
    examples: [
      { says: 'it was stolen', run: 'holdfast node freeze node-1 --reason "stolen from the rack"' },
    ],
    exits: { absent: 'there is no such node' },
    related: ['node unfreeze', 'node reset'],
    load: async () => (await import('./node-actions.ts')).freezeAction,
  },
  {
    name: 'unfreeze',
    summary: 'let the guardians release shares to this node again',
    arguments: [nodeArgument],
    options: placeOptions,
    examples: [{ says: 'it was found', run: 'holdfast node unfreeze node-1' }],
    exits: { refused: 'this needs the role admin', absent: 'there is no such node' },
    related: ['node freeze'],
    load: async () => (await import('./node-actions.ts')).unfreezeAction,
  },
]
