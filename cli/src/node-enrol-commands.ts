import type { CommandSpec, OptionSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'
import { nodeArgument, orderExits, timeoutOption } from './node-options.ts'
import { keyPassphraseOption, shareOption } from './options.ts'

const actions = () => import('./node-enrol-actions.ts')

const domainOption: OptionSpec = {
  flags: '--domain <NAME>',
  says: 'failure domain of nodes that come with it: guardians are spread over them',
}

/** Coming in, and being opened by people. */
export const nodeEnrolCommands: readonly CommandSpec[] = [
  {
    name: 'invite',
    summary: 'make an invite token, which a new node needs once',
    about: [
      'The token is shown this once. --out writes it to a file instead, readable by you alone.',
    ],
    options: [
      { flags: '--minutes <NUMBER>', says: 'how long it is good for, in minutes', default: '60' },
      { flags: '--uses <NUMBER>', says: 'how many nodes may come with it', default: '1' },
      domainOption,
      { flags: '--label <TEXT>', says: 'what it is for, shown in node invites' },
      { flags: '--out <FILE>', says: 'write the token to this file', completes: 'file' },
      ...placeOptions,
    ],
    examples: [
      {
        says: 'for one rack of ten',
        run: 'holdfast node invite --uses 10 --domain rack-1 --out invite.txt',
      },
    ],
    exits: { refused: 'this needs the role operator' },
    related: ['node enrol', 'node invites'],
    load: async () => (await actions()).inviteAction,
  },
  {
    name: 'invites',
    summary: 'invites and how they were used; revoke one',
    options: [
      { flags: '--revoke <ID>', says: 'no further node may come with this invite' },
      ...placeOptions,
    ],
    examples: [{ says: 'which are open?', run: 'holdfast node invites' }],
    exits: { absent: 'there is no such invite' },
    related: ['node invite'],
    load: async () => (await actions()).invitesAction,
  },
  {
    name: 'enrol',
    summary: 'take in the new machine that shows a code on its console',
    about: [
      'A new machine shows a code on its console and listens on port 9999. The code is typed here at the terminal or read from --code-file; it and the invite are secrets and are never arguments. Without --invite-file an invite for this one node is made, and given back when it fails.',
      'It is enrolled when its vault has been made, closed and opened again.',
      'The first node has nobody to guard it: with --genesis its vault is bound to the holders until enough peers have joined.',
    ],
    arguments: [
      { name: 'HOST', says: 'address of the new machine; the port is 9999 unless given' },
    ],
    options: [
      { flags: '--name <NAME>', says: 'what it is called from now on; required' },
      {
        flags: '--code-file <FILE>',
        says: 'the code on its console; - is standard input; default asked for at the terminal',
        completes: 'file',
      },
      {
        flags: '--invite-file <FILE>',
        says: 'the token of node invite; - is standard input; default one is made',
        completes: 'file',
      },
      { flags: '--genesis', says: 'the first node: its holders open it until peers have joined' },
      domainOption,
      { flags: '--wait', says: 'follow it until it is enrolled; this is the default' },
      { flags: '--no-wait', says: 'end as soon as the node has accepted' },
      timeoutOption,
      ...placeOptions,
    ],
    examples: [
      {
        says: 'the code comes from its console',
        run: 'console-code | holdfast node enrol new.example.com:9999 --name node-2 --code-file -',
      },
    ],
    exits: {
      refused: 'a wrong code, a used invite, a disk in use, a name that is taken',
      unavailable: 'port 9999 cannot be reached: a firewall may be in between',
    },
    related: ['node invite', 'node list', 'doctor node'],
    load: async () => (await actions()).enrolAction,
  },
  {
    name: 'unlock',
    summary: 'open a locked node with its holders or a passphrase',
    about: [
      'A node opens by itself when its guardians can be reached. Until peers have joined, or when too many guardians are gone, people open it: the holders with --key (whose key it is, is seen from the key) or with shares that openssl or an HSM unwrapped elsewhere (--export-shares, then --share), or somebody with a passphrase of the vault.',
      'Holders open only what was made for this very node: what it shows says so, and cannot be changed. The passphrase is shown nowhere. It is sealed for the node at once and goes through the coordinator, or with --at straight to the node, whose id is its pin.',
    ],
    arguments: [{ ...nodeArgument, optional: true }],
    options: [
      { flags: '--genesis', says: 'the first node: refuse when peers guard it already' },
      {
        flags: '--key <FILE>',
        says: "a holder's private key, PEM; a passphrase is asked for when it has one",
        repeat: true,
        completes: 'file',
      },
      keyPassphraseOption,
      shareOption,
      {
        flags: '--export-shares <DIR>',
        says: 'write what each holder has to unwrap, as NAME.wrapped, and end',
        completes: 'directory',
      },
      {
        flags: '--passphrase-file <FILE>',
        says: 'a passphrase of the vault; - is standard input; default asked for at the terminal',
        completes: 'file',
      },
      {
        flags: '--at <ADDRESS>',
        says: 'without a coordinator: HOST or HOST:PORT of its peer port',
      },
      { flags: '--pin <ID>', says: 'with --at: the id of the node, 43 characters' },
      {
        flags: '--made-for <ID>',
        says: "after panic 2: the id that the node had when the header was made that came back; its holders' way is of that one",
      },
      timeoutOption,
      ...placeOptions,
    ],
    examples: [
      {
        says: 'the first node after a power cut: two of its three holders',
        run: 'holdfast node unlock node-1 --genesis --key alice.key --key bob.key',
      },
      {
        says: 'while the coordinator is away',
        run: 'holdfast node unlock --at node1.example.com:9998 --pin NODE1 --key alice.key --key bob.key',
      },
    ],
    exits: {
      ...orderExits,
      refused: 'peers guard it already; or nobody is there to type',
      unavailable: 'too few holders are here, or the node has no session with the coordinator',
      integrity: 'the passphrase opens nothing; the attempt was counted',
    },
    related: ['node status', 'doctor node'],
    load: async () => (await import('./node-unlock-actions.ts')).unlockAction,
  },
]
