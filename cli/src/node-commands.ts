import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'
import { nodeChangeCommands } from './node-change-commands.ts'
import { nodeEndCommands } from './node-end-commands.ts'
import { nodeEnrolCommands } from './node-enrol-commands.ts'
import { nodeLocalCommands } from './node-local-commands.ts'
import { nodeArgument, orderExits, timeoutOption } from './node-options.ts'

const actions = () => import('./node-actions.ts')

/** `holdfast node` */
export const nodeCommand: CommandSpec = {
  name: 'node',
  summary: 'enrol, look at, open, command and retire the machines of the fleet',
  about: [
    'A node is named by its name or by the beginning of its id. Commands go through the coordinator, are followed to their end, and are in the audit log; with --no-wait the id of the command is printed, and node wait follows it later.',
    'What cannot be undone asks for the name of the node once more: at the terminal, or with --confirm NAME.',
  ],
  examples: [{ says: 'how are they?', run: 'holdfast node list' }],
  children: [
    {
      name: 'list',
      summary: 'all nodes: phase, guardians up and needed, margin, what to notice',
      options: placeOptions,
      examples: [
        { says: 'how are they?', run: 'holdfast node list' },
        {
          says: 'names of those that are not open',
          run: `holdfast node list --json | jq -r '.[] | select(.phase != "open") | .name'`,
        },
      ],
      related: ['node show', 'doctor'],
      load: async () => (await actions()).listAction,
    },
    {
      name: 'show',
      summary: 'one node: guardians, wards, ways in with their last proof, incidents, errors',
      arguments: [nodeArgument],
      options: placeOptions,
      examples: [{ says: 'everything known about it', run: 'holdfast node show node-1' }],
      exits: { absent: 'there is no such node' },
      related: ['node status', 'doctor node'],
      load: async () => (await actions()).showAction,
    },
    {
      name: 'status',
      summary: 'ask a node itself how it is',
      arguments: [nodeArgument],
      options: [timeoutOption, ...placeOptions],
      examples: [{ says: 'for monitoring', run: 'holdfast node status node-1' }],
      codes: {
        0: 'open',
        1: 'the status cannot be had, or the node has left or is wiped',
        2: 'locked, or in rescue: it waits for a way in or for people',
        3: 'not enrolled yet',
      },
      related: ['node show', 'doctor node'],
      load: async () => (await actions()).statusAction,
    },
    {
      name: 'commands',
      summary: 'what a node was told, by whom, and what came of it',
      arguments: [nodeArgument],
      options: placeOptions,
      examples: [{ says: 'newest first', run: 'holdfast node commands node-1' }],
      exits: { absent: 'there is no such node' },
      related: ['node wait', 'audit list'],
      load: async () => (await actions()).commandsAction,
    },
    {
      name: 'wait',
      summary: 'follow a command that was given before to its end',
      arguments: [{ name: 'ID', says: 'the id that --no-wait printed, or node commands shows' }],
      options: [timeoutOption, ...placeOptions],
      examples: [
        {
          says: 'begin now, wait later',
          run: 'id=$(holdfast node rehearse node-1 --no-wait | head -1); holdfast node wait "$id"',
        },
      ],
      exits: { ...orderExits, absent: 'there is no such command' },
      related: ['node commands'],
      load: async () => (await actions()).waitAction,
    },
    ...nodeEnrolCommands,
    ...nodeChangeCommands,
    ...nodeEndCommands,
    ...nodeLocalCommands,
  ],
}
