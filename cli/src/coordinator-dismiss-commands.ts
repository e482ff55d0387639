import type { CommandSpec } from './command.ts'
import { placeOptions, userOptions } from './coordinator-options.ts'

const actions = () => import('./coordinator-dismiss-actions.ts')

/** When nobody can, or wants to, recover a state. */
export const coordinatorDismissCommands: readonly CommandSpec[] = [
  {
    name: 'dismiss',
    summary: 'give a sealed state up, by its holders or with the token of its console',
    about: [
      'Begins a ceremony of the holders, or finds it: once as many have answered as a recovery needs, the state is archived and the coordinator waits to be claimed anew.',
      'With --token-file, where the holders are gone: the file that holdfast coordinator console-token makes on the machine itself. The state is archived, and the coordinator is claimed anew by you.',
      'The archive lies in the directory of the coordinator as a backup that its holders can still open. The audit log stays.',
    ],
    options: [
      {
        flags: '--token-file <FILE>',
        says: 'without the holders: the token of the console; - is standard input',
        completes: 'file',
      },
      {
        flags: '--confirm <CLUSTER>',
        says: "the cluster's id, as the status has it; default asked for at the terminal",
      },
      ...userOptions,
      ...placeOptions,
    ],
    examples: [
      {
        says: 'begin, or look again',
        run: 'holdfast coordinator seal && holdfast coordinator dismiss',
      },
    ],
    exits: {
      refused: 'it is not sealed, the token is wrong or was used, or it was not confirmed',
    },
    related: ['coordinator console-token', 'coordinator recover', 'holder answer'],
    load: async () => (await actions()).dismissAction,
  },
  {
    name: 'console-token',
    summary: "make the one-time token that gives a state up, on the coordinator's machine",
    about: ['Whoever can read the directory of a coordinator may do this, and nobody else.'],
    options: [
      {
        flags: '--directory <DIR>',
        says: 'the directory that it serves; required',
        completes: 'directory',
      },
    ],
    examples: [
      { says: 'at the machine', run: 'holdfast coordinator console-token --directory /srv/new' },
    ],
    exits: { absent: 'this is not the directory of a coordinator' },
    related: ['coordinator dismiss'],
    load: async () => (await actions()).consoleTokenAction,
  },
]
