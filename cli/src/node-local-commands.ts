import type { CommandSpec } from './command.ts'
import { directoryOption } from './up-commands.ts'

const actions = () => import('./fleet-node-actions.ts')
const localArgument = { name: 'NAME', says: 'its name in the local fleet, such as node-1' }
const exits = { absent: 'none is running, or there is no such node' } as const

/** Power for the machines of `holdfast up`. */
export const nodeLocalCommands: readonly CommandSpec[] = [
  {
    name: 'kill',
    summary: 'cut the power of a node of the local fleet',
    about: [
      'Only for the fleet that holdfast up runs on this machine: what its node had in memory is gone.',
    ],
    arguments: [localArgument],
    options: [directoryOption],
    examples: [{ says: 'does it come back by itself?', run: 'holdfast node kill node-1' }],
    exits,
    related: ['node start', 'up'],
    load: async () => (await actions()).nodeKillAction,
  },
  {
    name: 'start',
    summary: 'give a node of the local fleet its power back',
    arguments: [localArgument],
    options: [directoryOption],
    examples: [{ says: 'power is back', run: 'holdfast node start node-1' }],
    exits,
    related: ['node kill', 'up'],
    load: async () => (await actions()).nodeStartAction,
  },
]
