import type { CommandSpec } from './command.ts'
import {
  ceremonyOption,
  holderArgument,
  holderKeyOptions,
  holderTokenOptions,
  placeOptions,
} from './coordinator-options.ts'

const actions = () => import('./holder-actions.ts')

const withOpenssl = [
  'The same with openssl. Unwrap: openssl pkeyutl -decrypt -inkey NAME.key -in wrapped -out share -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256. Append "share HEX" (or "approve") as the last line of the statement. Sign: openssl dgst -sha256 -sign NAME.key -out signature statement. docs/operator/holders.md has every command.',
  'With the key in a token (PKCS#11): --wrapped writes what the token decrypts, --raw-block with --to-sign writes what it signs, and --raw-block with --signature ends it.',
]

/** A holder's part in the ceremonies of a coordinator. */
export const holderCeremonyCommands: readonly CommandSpec[] = [
  {
    name: 'request',
    summary: "fetch a holder's wrapped share and the statement to sign",
    about: [
      'For an air gap: the file is signed by the coordinator, so that anybody may carry it. Next, on the offline machine: holdfast holder answer NAME --key FILE --in REQUEST --out ANSWER.',
    ],
    arguments: [holderArgument],
    options: [
      ceremonyOption,
      {
        flags: '--out <FILE>',
        says: 'write the request to FILE; - is standard output',
        default: '-',
        completes: 'file',
      },
      ...placeOptions,
    ],
    examples: [{ says: 'for a USB stick', run: 'holdfast holder request alice --out ask.json' }],
    exits: { usage: 'no ceremony is open', absent: 'there is no such ceremony or holder' },
    related: ['holder answer', 'coordinator recover'],
    load: async () => (await actions()).requestAction,
  },
  {
    name: 'answer',
    summary: "answer a ceremony with the holder's key",
    about: [
      'Unwraps the share (or approves), signs, and hands it in. With --in and --out nothing is sent: the answer is encrypted to the coordinator and handed in with holdfast holder submit by whoever carries it. A request that the pinned coordinator has not signed is refused.',
      ...withOpenssl,
    ],
    arguments: [holderArgument],
    options: [
      ...holderKeyOptions,
      ...holderTokenOptions,
      ceremonyOption,
      { flags: '--in <FILE>', says: 'offline: a request that was carried here', completes: 'file' },
      { flags: '--out <FILE>', says: 'offline: where the answer goes', completes: 'file' },
      {
        flags: '--digest <DIGEST>',
        says: 'refuse a ceremony about anything else, such as a manifest that you have verified',
      },
      ...placeOptions,
    ],
    examples: [{ says: 'at a desk', run: 'holdfast holder answer alice --key alice.key' }],
    exits: {
      integrity:
        'another coordinator asks, the request was altered, the share is wrong, or this holder has answered already',
      refused: 'the key is unfit',
    },
    related: ['holder submit', 'holder prove', 'manifest verify'],
    load: async () => (await actions()).answerAction,
  },
  {
    name: 'submit',
    summary: 'hand in an answer that was made offline',
    arguments: [
      { name: 'ANSWER', says: 'the answer file; - is standard input', completes: 'file' },
    ],
    options: [ceremonyOption, ...placeOptions],
    examples: [{ says: 'from a USB stick', run: 'holdfast holder submit reply.json' }],
    exits: { integrity: 'the answer is of another ceremony, stale, or its share is wrong' },
    related: ['holder answer'],
    load: async () => (await actions()).submitAction,
  },
  {
    name: 'share',
    summary: "fetch a holder's wrapped share, to be kept beside the coordinator",
    about: [
      'Of the current data key, wrapped for the key of the holder: worth nothing without that key, and nothing alone. It can be had at any time, sealed or not, and changes with every generation of the data key.',
    ],
    arguments: [holderArgument],
    options: [
      {
        flags: '--out <FILE>',
        says: 'write it to FILE, as JSON; - is standard output',
        default: '-',
        completes: 'file',
      },
      ...placeOptions,
    ],
    examples: [{ says: 'after a rotation', run: 'holdfast holder share alice --out share.json' }],
    exits: { refused: 'the state has no share of that holder' },
    related: ['holder request', 'coordinator rotate'],
    load: async () => (await actions()).shareAction,
  },
  {
    name: 'prove',
    summary: "prove a holder's key, at any time; no share is touched",
    about: [
      'Unwraps a value that was made for the purpose. The status says how many holders have proven their keys within 90 days, and alarms when they are too few to recover.',
      ...withOpenssl,
    ],
    arguments: [holderArgument],
    options: [...holderKeyOptions, ...holderTokenOptions, ...placeOptions],
    examples: [{ says: 'every quarter', run: 'holdfast holder prove bob --key bob.key' }],
    exits: { integrity: 'the key is not that of the holder' },
    related: ['coordinator status', 'holder answer'],
    load: async () => (await actions()).proveAction,
  },
]
