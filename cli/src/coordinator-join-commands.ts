import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'

const actions = () => import('./coordinator-join-actions.ts')

/** How a cluster on PostgreSQL gets one more instance. */
export const coordinatorJoinCommands: readonly CommandSpec[] = [
  {
    name: 'join-token',
    summary: "make the one-time token for another instance, on a running instance's machine",
    about: [
      'Whoever has it may fetch the identity key and the host key of the cluster, once and within ten minutes. Whoever can read the directory may make it, and nobody else: no user of the API can.',
    ],
    options: [
      {
        flags: '--directory <DIR>',
        says: 'the directory that the running instance serves; required',
        completes: 'directory',
      },
    ],
    examples: [
      { says: 'at the machine', run: 'holdfast coordinator join-token --directory /srv/new' },
    ],
    exits: { absent: 'this is not the directory of a cluster' },
    related: ['coordinator join', 'coordinator serve'],
    load: async () => (await actions()).joinTokenAction,
  },
  {
    name: 'join',
    summary: 'make an empty directory into one more instance of a running cluster',
    about: [
      'Fetches the identity key and the host key from a running instance, over TLS pinned to its identity and sealed to a key made for this. Then serve the directory with the same PostgreSQL.',
      'Interrupted, it is run again with a new token.',
    ],
    options: [
      {
        flags: '--token-file <FILE>',
        says: 'what join-token printed; - is standard input; required',
        completes: 'file',
      },
      {
        flags: '--directory <DIR>',
        says: 'the directory of the new instance, empty; required',
        completes: 'directory',
      },
      { flags: '--instance <NAME>', says: "the new instance's name; default the host's name" },
      ...placeOptions,
    ],
    examples: [
      {
        says: 'on the new machine',
        run: 'holdfast coordinator join --coordinator https://one.example.com:8443 --identity PIN1 --token-file token --directory fleet',
      },
    ],
    exits: { refused: 'the token is wrong, used or old, or the directory is not empty' },
    related: ['coordinator join-token', 'coordinator serve'],
    load: async () => (await actions()).joinAction,
  },
]
