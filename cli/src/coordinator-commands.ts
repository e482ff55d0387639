import type { CommandSpec } from './command.ts'
import { coordinatorDismissCommands } from './coordinator-dismiss-commands.ts'
import { coordinatorJoinCommands } from './coordinator-join-commands.ts'
import { coordinatorKeyCommands } from './coordinator-key-commands.ts'
import { placeOptions, storeOption, userOptions } from './coordinator-options.ts'

const actions = () => import('./coordinator-actions.ts')

/** `holdfast coordinator` */
export const coordinatorCommand: CommandSpec = {
  name: 'coordinator',
  summary: 'run, claim, seal, recover and back up the coordinator of a fleet',
  about: [
    'Its state is sealed: a data key that automatic ways (a host key, a TPM, key servers) or k of n holders open. When none is within reach it is in recovery: alive, and honest about whom it needs.',
    'Clients pin its identity and know it again before, during and after a recovery.',
  ],
  examples: [{ says: 'how is it?', run: 'holdfast coordinator status' }],
  children: [
    {
      name: 'serve',
      summary: 'run a coordinator',
      about: [
        'Prints one line when it listens and runs until Ctrl-C or SIGTERM. A new one writes a one-time token into the file claim-token of its directory. A directory whose state is missing or damaged is never taken for new.',
        'With PostgreSQL several instances may serve one cluster side by side.',
      ],
      options: [
        {
          flags: '--directory <DIR>',
          says: 'identity, marker, host key and, with SQLite, the state; required',
          completes: 'directory',
        },
        storeOption,
        { flags: '--host <ADDRESS>', says: 'address to listen on', default: '127.0.0.1' },
        { flags: '--port <PORT>', says: 'port to listen on; 0 takes a free one', default: '8443' },
        { flags: '--instance <NAME>', says: "this instance's own name; default the host's name" },
        {
          flags: '--address <URL>',
          says: 'https://HOST:PORT of every instance, as nodes find them; default this one by its host',
          repeat: true,
        },
        {
          flags: '--origin <ORIGIN>',
          says: 'https://HOST of pages, besides its own, whose scripts may change something',
          repeat: true,
        },
        {
          flags: '--audit-sink <FILE>',
          says: 'copy the audit log to the server in FILE: JSON with url, and authorization or identity',
          completes: 'file',
        },
        {
          flags: '--tpm <TCTI>',
          says: "the TPM that witnesses the state's generation: auto takes this machine's own if it has one; off; or its address",
          default: 'auto',
        },
        {
          flags: '--log <LEVEL>',
          says: 'least level logged on standard error',
          choices: ['debug', 'info', 'warn', 'error', 'silent'],
          default: 'info',
        },
      ],
      examples: [
        {
          says: 'on this machine',
          run: 'holdfast coordinator serve --directory fleet --port 8443',
        },
      ],
      exits: {
        refused: 'the directory cannot be used',
        unavailable: 'the store or port is not free',
      },
      related: ['coordinator claim', 'coordinator status'],
      load: async () => (await actions()).serveAction,
    },
    {
      name: 'status',
      summary: 'show its state, why, who is needed and what is next',
      options: placeOptions,
      examples: [{ says: 'how is it?', run: 'holdfast coordinator status' }],
      codes: {
        0: 'running',
        1: 'the status cannot be had: not reachable, or another identity answers',
        2: 'sealed, or in recovery: people or a key are needed',
        3: 'it waits for its owner: for a claim or for the manifest',
      },
      related: ['coordinator recover', 'manifest set'],
      load: async () => (await actions()).statusAction,
    },
    {
      name: 'claim',
      summary: 'take a new coordinator, with the token that lies on its machine',
      about: [
        'Makes the cluster, its first user and its first automatic way, and logs in. The token works once. Next: holdfast manifest set.',
      ],
      options: [
        {
          flags: '--token-file <FILE>',
          says: 'the file claim-token in its directory; - is standard input; required',
          completes: 'file',
        },
        ...userOptions,
        ...placeOptions,
      ],
      examples: [
        {
          says: 'claim a new one',
          run: 'holdfast coordinator claim --coordinator https://new.example.com:8443 --identity NEWPIN --token-file /srv/new/claim-token --password-file passphrase',
        },
      ],
      exits: { refused: 'the token is wrong or was used, or the identity was not confirmed' },
      related: ['manifest set', 'coordinator login'],
      load: async () => (await actions()).claimAction,
    },
    {
      name: 'login',
      summary: 'get an API token and pin the identity, for the commands that follow',
      about: [
        'The token is written to coordinator.json in the state directory, readable by you alone, and is good for 30 days.',
      ],
      options: [
        ...userOptions,
        {
          flags: '--scope <ROLE>',
          says: "only this role; default all of the user's",
          repeat: true,
        },
        ...placeOptions,
      ],
      examples: [
        {
          says: 'first contact',
          run: 'holdfast coordinator login --coordinator https://fleet.example.com:8443 --identity PIN1 --password-file passphrase',
        },
      ],
      exits: { refused: 'the password is wrong, or the identity was not confirmed' },
      related: ['coordinator status', 'audit list'],
      load: async () => (await actions()).loginAction,
    },
    {
      name: 'recover',
      summary: 'begin the recovery, or find it: who has answered and who has not',
      options: placeOptions,
      examples: [{ says: 'begin, or look again', run: 'holdfast coordinator recover' }],
      exits: { unavailable: 'it cannot be reached' },
      related: ['holder answer', 'holder request', 'coordinator status'],
      load: async () => (await actions()).recoverAction,
    },
    {
      name: 'accept-rollback',
      summary: 'ask the holders to accept a state older than nodes have seen',
      about: ['Only when no newer backup exists: what happened since then is lost.'],
      options: placeOptions,
      examples: [{ says: 'after an old restore', run: 'holdfast coordinator accept-rollback' }],
      exits: { refused: 'no rollback is suspected' },
      related: ['coordinator restore', 'holder answer'],
      load: async () => (await actions()).acceptRollbackAction,
    },
    {
      name: 'seal',
      summary: 'make it forget the data key now',
      options: placeOptions,
      examples: [{ says: 'before its machine leaves', run: 'holdfast coordinator seal' }],
      exits: { refused: 'this needs the role admin' },
      related: ['coordinator recover'],
      load: async () => (await actions()).sealAction,
    },
    ...coordinatorDismissCommands,
    ...coordinatorJoinCommands,
    ...coordinatorKeyCommands,
  ],
}
