import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'
import {
  confirmOption,
  nodeArgument,
  orderExits,
  orderOptions,
  receiptOption,
} from './node-options.ts'

const actions = () => import('./node-end-actions.ts')

/** What ends a node's life, or locks it. */
export const nodeEndCommands: readonly CommandSpec[] = [
  {
    name: 'leave',
    summary: 'let a node give its wards to others, destroy its keys and go',
    about: [
      'When the manifest asks for a second person, it waits for node approve, and its wards stay until then.',
    ],
    arguments: [nodeArgument],
    options: [
      confirmOption,
      { flags: '--force', says: 'although wards fall below threshold plus margin' },
      ...orderOptions,
    ],
    examples: [{ says: 'in an orderly way', run: 'holdfast node leave node-1 --confirm node-1' }],
    exits: { ...orderExits, refused: 'a ward would fall below its margin; nothing was done' },
    related: ['node approve', 'node remove', 'node reset'],
    load: async () => (await actions()).leaveAction,
  },
  {
    name: 'reset',
    summary: 'factory reset: destroy the keys first, then revoke at the guardians',
    about: [
      'Works while the node is locked. When the manifest asks for a second person, it waits for node approve.',
    ],
    arguments: [nodeArgument],
    options: [confirmOption, receiptOption, ...orderOptions],
    examples: [
      {
        says: 'with a receipt',
        run: 'holdfast node reset node-1 --confirm node-1 --out receipt.json',
      },
    ],
    exits: { ...orderExits, refused: 'the name was not confirmed; nothing was done' },
    related: ['node leave', 'node panic'],
    load: async () => (await actions()).resetAction,
  },
  {
    name: 'panic',
    summary: 'lock a node (1), destroy its keys (2), or destroy everything (3)',
    about: [
      '1 stops services and closes the vault; it opens again when a key is pushed. 2 destroys the keys: a sealed header backup together with the holders brings the data back. 3 destroys every copy as well: nothing does.',
      'Look first with --dry-run: it says what is destroyed, what survives and what cannot be reached. When the manifest asks for a second person, 2 and 3 wait for node approve.',
    ],
    arguments: [nodeArgument],
    options: [
      { flags: '--level <LEVEL>', says: '1, 2 or 3; required', choices: ['1', '2', '3'] },
      { flags: '--dry-run', says: 'say what would happen and do nothing' },
      confirmOption,
      receiptOption,
      ...orderOptions,
    ],
    examples: [
      { says: 'what would it do?', run: 'holdfast node panic node-1 --level 2 --dry-run' },
      { says: 'lock it now', run: 'holdfast node panic node-1 --level 1 --confirm node-1' },
    ],
    exits: { ...orderExits, refused: 'the name was not confirmed; nothing was done' },
    related: ['node unlock', 'node first-boot', 'vault panic'],
    load: async () => (await actions()).panicAction,
  },
  {
    name: 'approve',
    summary: 'be the second person for a command that destroys keys',
    arguments: [{ name: 'ID', says: 'the id that the first person was shown' }],
    options: placeOptions,
    examples: [
      {
        says: 'as somebody else than who ordered it',
        run: 'holdfast node approve "$(cat pending.txt)" --state-dir bob',
      },
    ],
    exits: { refused: 'it was you who ordered it, it does not wait, or the node is needed' },
    related: ['node leave', 'node reset', 'node panic', 'node wait'],
    load: async () => (await import('./node-actions.ts')).approveAction,
  },
  {
    name: 'remove',
    summary: 'forget a node that has left or is lost',
    about: [
      'Its certificate opens nothing from then on. A node that is there is told to leave first.',
    ],
    arguments: [nodeArgument],
    options: [confirmOption, ...placeOptions],
    examples: [{ says: 'it burnt', run: 'holdfast node remove node-1 --confirm node-1' }],
    exits: { refused: 'it is connected, or guards others', absent: 'there is no such node' },
    related: ['node leave', 'node freeze'],
    load: async () => (await import('./node-actions.ts')).removeAction,
  },
]
