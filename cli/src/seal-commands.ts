import type { CommandSpec, OptionSpec } from './command.ts'
import { openingOptions, policyArguments, policyOptions } from './options.ts'

const inOption = (what: string): OptionSpec => ({
  flags: '--in <FILE>',
  says: `read ${what} from FILE; - is standard input`,
  default: '-',
  completes: 'file',
})

const outOption = (what: string): OptionSpec => ({
  flags: '--out <FILE>',
  says: `write ${what} to FILE, whole or not at all, mode 0600; - is standard output`,
  default: '-',
  completes: 'file',
})

const policyAbout = [
  'A policy is one pin or a threshold (sss) of pins and policies. tang: {"url":...} with "thp", a',
  'signing key\'s thumbprint, or "adv", an advertisement or the name of its file; tpm2:',
  '{"pcr_ids":"7"}; person: {"name":"alice","key":"alice.pub"}; passphrase: {"name":"backup"};',
  'sss: {"t":2,"pins":{"tang":[{...},{...}],"person":{...}}}.',
].join(' ')

const sealCommand: CommandSpec = {
  name: 'seal',
  summary: 'seal a secret under a policy of pins',
  about: [
    'Reads a secret and writes a compact JWE that opens when the policy is satisfied; clevis opens it too where it has the pins.',
    policyAbout,
    'A key server is trusted when the policy pins its key. At a terminal, and not with --unattended, its thumbprints may be confirmed by a person instead.',
  ],
  arguments: policyArguments,
  options: [
    ...policyOptions,
    inOption('the secret'),
    outOption('the sealed secret'),
    {
      flags: '--passphrase-file <FILE>',
      says: 'the passphrase of a passphrase pin; - is standard input',
      completes: 'file',
    },
  ],
  examples: [
    {
      says: 'seal to one key server whose advertisement was brought over',
      run: `holdfast seal tang '{"url":"http://tang1.example.com","adv":"tang1.adv"}' < secret > secret.jwe`,
    },
    {
      says: 'any two of three holders',
      run: 'holdfast seal --policy holders.json --in secret --out secret.jwe',
    },
  ],
  exits: {
    refused: 'a key server is not trusted, or a key is too weak',
    unavailable: 'a key server cannot be reached',
  },
  related: ['open', 'rehearse', 'inspect'],
  load: async () => (await import('./seal-actions.ts')).sealAction,
}

const openCommand: CommandSpec = {
  name: 'open',
  summary: 'open a sealed secret',
  about: [
    'Reads a sealed secret and writes the secret to standard output. All pins race; the rest is cancelled when the threshold is met. Nothing is written before the secret has been authenticated.',
    'A holder without this program unwraps their share with plain openssl from the file that holdfast inspect --export-shares wrote: openssl pkeyutl -decrypt -inkey alice.key -in alice.wrapped -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -out alice.share',
  ],
  options: [
    inOption('the sealed secret'),
    outOption('the secret'),
    ...openingOptions,
    { flags: '--retry', says: 'ask key servers again for ever, with growing jittered waits' },
  ],
  examples: [
    { says: 'open with whatever the policy needs', run: 'holdfast open < secret.jwe > secret.txt' },
    {
      says: 'two holders, one with a key and one with a share unwrapped by openssl',
      run: 'holdfast open --holder-key alice=alice.key --share bob=bob.share < holders.jwe > secret.txt',
    },
  ],
  exits: {
    unavailable: 'fewer pins than needed answered',
    integrity: 'a share, key or passphrase is wrong, or the sealed secret was altered',
  },
  related: ['seal', 'rehearse'],
  load: async () => (await import('./seal-actions.ts')).openAction,
}

const inspectCommand: CommandSpec = {
  name: 'inspect',
  summary: 'show what a sealed secret says about itself',
  about: [
    'Prints pins, addresses, thumbprints, curves, thresholds and generations. Nothing is opened and nobody is asked; all of it is public.',
    'With --export-shares the wrapped share of each RSA holder is written to DIR/NAME.wrapped, for openssl pkeyutl or an HSM; see holdfast open --help.',
  ],
  options: [
    inOption('the sealed secret'),
    {
      flags: '--export-shares <DIR>',
      says: "write each holder's wrapped share to DIR/NAME.wrapped",
      completes: 'directory',
    },
  ],
  examples: [
    { says: 'look at a sealed secret', run: 'holdfast inspect < secret.jwe' },
    {
      says: 'let a holder use plain openssl',
      run: `holdfast inspect --in holders.jwe --export-shares .
openssl pkeyutl -decrypt -inkey bob.key -in bob.wrapped -out bob.share \\
  -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256`,
    },
  ],
  exits: { invalid: 'it is not a sealed secret' },
  related: ['open', 'rehearse'],
  load: async () => (await import('./seal-actions.ts')).inspectAction,
}

const rehearseCommand: CommandSpec = {
  name: 'rehearse',
  summary: 'prove that each pin of a sealed secret works, and reveal nothing',
  about: [
    'Exercises every pin, not just enough of them. A pin that needs a person is tried only when their key, share or passphrase is given, or with --people at a terminal.',
    'margin is how many pins more than needed are proven.',
  ],
  options: [
    inOption('the sealed secret'),
    ...openingOptions,
    { flags: '--people', says: 'ask people at the terminal too' },
  ],
  examples: [
    { says: 'prove every key server', run: 'holdfast rehearse < secret.jwe' },
    {
      says: 'let two holders prove their keys',
      run: 'holdfast rehearse --in holders.jwe --holder-key alice=alice.key --holder-key bob=bob.key',
    },
  ],
  exits: {
    unavailable: 'the secret would not open now; the table says why',
    integrity: 'a share or key is wrong',
  },
  related: ['open', 'reseal'],
  load: async () => (await import('./seal-actions.ts')).rehearseAction,
}

const resealCommand: CommandSpec = {
  name: 'reseal',
  summary: 'change the policy of a sealed secret, proving the new one first',
  about: [
    'Opens the old form, seals under the new policy, proves the new form through its live pins and only then writes it. With --out naming the same file as --in, the old form stays until then and is replaced in one step.',
    'Without a policy the old one is kept and the newest advertised keys are used; a rotated key server is trusted when a key already trusted signed its advertisement.',
  ],
  arguments: policyArguments,
  options: [
    ...policyOptions,
    inOption('the sealed secret'),
    outOption('the new form'),
    ...openingOptions,
    {
      flags: '--unproven',
      says: 'accept a new policy that only people who are not here could prove',
    },
  ],
  examples: [
    {
      says: 'after a rotation move to the new keys',
      run: 'holdfast reseal --in secret.jwe --out secret.jwe',
    },
    {
      says: 'seal under another policy',
      run: 'holdfast reseal --policy two-of-three.json < secret.jwe > new.jwe',
    },
  ],
  exits: {
    refused: 'the new form could not be proven, or a key server is not trusted',
    unavailable: 'the old form does not open now',
  },
  related: ['seal', 'rehearse'],
  load: async () => (await import('./seal-actions.ts')).resealAction,
}

/** The commands over sealed secrets. */
export const sealCommands: readonly CommandSpec[] = [
  sealCommand,
  openCommand,
  inspectCommand,
  rehearseCommand,
  resealCommand,
]
