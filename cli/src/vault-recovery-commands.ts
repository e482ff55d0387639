import type { CommandSpec, OptionSpec } from './command.ts'
import { holderCeremonyCommands } from './holder-commands.ts'
import {
  accessOptions,
  bindingOptions,
  deviceArgument,
  holderOptions,
  keyslotOption,
  volumeOptions,
} from './options.ts'

const header = () => import('./vault-header-actions.ts')
const offline = () => import('./offline-actions.ts')

/** How a text leaves as a picture. */
const pictureOptions: readonly OptionSpec[] = [
  { flags: '--qr', says: 'show it as QR codes in the terminal, on standard error' },
  { flags: '--png <FILE>', says: 'write it as QR codes into one PNG picture', completes: 'file' },
]

const uuidOption: OptionSpec = {
  flags: '--uuid <UUID>',
  says: "the volume's UUID, where its header no longer tells it",
}

const headerCommand: CommandSpec = {
  name: 'header',
  summary: 'header backups, sealed to holders',
  about: [
    'A backup is made after each change. It is two files: the sealed header, and what it is in the clear. Backups that would resurrect a removed keyslot are stale, and destroyed after a rekey.',
  ],
  examples: [{ says: 'make one now', run: 'holdfast vault header backup /dev/sdb1' }],
  children: [
    {
      name: 'backup',
      summary: 'seal a backup of the header as it is now',
      arguments: [deviceArgument],
      options: [
        ...volumeOptions,
        {
          flags: '--policy <FILE>',
          says: 'policy to seal it under; default the holders of the recovery slot',
          completes: 'file',
        },
        {
          flags: '--reencrypted',
          says: 'the data was encrypted anew: remember its new volume key instead of refusing it',
        },
      ],
      examples: [{ says: 'seal it to the holders', run: 'holdfast vault header backup /dev/sdb1' }],
      exits: {
        integrity: 'the header is damaged, or another volume is in its place',
        refused: 'there are no holders to seal it to',
      },
      related: ['vault header restore', 'vault header list'],
      load: async () => (await header()).backupAction,
    },
    {
      name: 'restore',
      summary: 'put a sealed header backup back, also onto a destroyed header',
      about: [
        "Sizes and ownership are checked before the device is touched; a way in is proven afterwards, and on any failure the device's bytes are what they were. A foreign backup is refused, a stale one unless exactly what it resurrects is named.",
        'Without --backup the newest backup of the volume is used.',
      ],
      arguments: [deviceArgument],
      options: [
        ...volumeOptions,
        uuidOption,
        { flags: '--backup <FILE>', says: 'the sealed backup, NAME.jwe', completes: 'file' },
        {
          flags: '--expect <UUID>',
          says: 'whose device it is, when nothing on it tells any more',
        },
        {
          flags: '--accept-stale <KEYSLOTS>',
          says: 'the keyslots that a stale backup resurrects, as the refusal names them',
        },
        { flags: '--keep-unproven', says: 'keep the header although no way in could be proven' },
        ...accessOptions,
        ...bindingOptions,
      ],
      examples: [
        {
          says: 'two holders restore a destroyed header',
          run: 'holdfast vault header restore /dev/sdb1 --holder-key alice=alice.key --holder-key bob=bob.key',
        },
      ],
      exits: {
        integrity: 'the backup is foreign or stale',
        refused: 'its sizes do not fit the device, or the volume was destroyed',
        unavailable: 'the holders did not open it, or no way in could be proven',
        absent: 'there is no backup',
      },
      related: ['vault header list', 'vault rehearse'],
      load: async () => (await header()).restoreAction,
    },
    {
      name: 'list',
      summary: 'list the header backups of a volume',
      arguments: [{ ...deviceArgument, optional: true }],
      options: [...volumeOptions, uuidOption],
      examples: [{ says: 'which are there?', run: 'holdfast vault header list /dev/sdb1' }],
      exits: { absent: 'the volume is unknown: give --uuid' },
      related: ['vault header restore', 'vault header prune'],
      load: async () => (await header()).listAction,
    },
    {
      name: 'prune',
      summary: 'destroy the backups that would resurrect a removed keyslot',
      arguments: [deviceArgument],
      options: [...volumeOptions, { flags: '--dry-run', says: 'only say which' }],
      examples: [
        { says: 'which would go?', run: 'holdfast vault header prune /dev/sdb1 --dry-run' },
      ],
      exits: { absent: 'the header as it is now has no backup yet' },
      related: ['vault header list'],
      load: async () => (await header()).pruneAction,
    },
    {
      name: 'resume',
      summary: 'finish a restore that was interrupted, without the holders',
      arguments: [{ ...deviceArgument, optional: true }],
      options: [...volumeOptions, uuidOption, ...accessOptions, ...bindingOptions],
      examples: [{ says: 'after a power cut', run: 'holdfast vault header resume /dev/sdb1' }],
      exits: { unavailable: 'no way in could be proven; the old bytes are back' },
      related: ['vault header restore'],
      load: async () => (await header()).resumeAction,
    },
  ],
}

const panicCommand: CommandSpec = {
  name: 'panic',
  summary: 'lock (1), destroy keys (2) or destroy everything (3)',
  about: [
    '1 closes the mapping. 2 destroys keyslots, header and tokens: only a sealed header backup and its holders bring the volume back. 3 also destroys every backup that Holdfast made: nothing brings it back.',
    'Two steps: the first shows what will be destroyed, what survives and what cannot be reached, and gives a code that is good for five minutes; the second does it. At a terminal the code is asked for at once; otherwise run the command again with --code. From then on it only goes forward: after a power cut, --resume. A receipt is written.',
  ],
  arguments: [{ ...deviceArgument, optional: true }],
  options: [
    ...volumeOptions,
    { flags: '--level <LEVEL>', says: 'how far it goes, see above', choices: ['1', '2', '3'] },
    { flags: '--dry-run', says: 'only show the plan; nothing is prepared' },
    { flags: '--code <CODE>', says: 'the code of the prepared wipe: do it' },
    {
      flags: '--policy <FILE>',
      says: 'level 2: seal a header backup under this policy first, when there is none',
      completes: 'file',
    },
    { flags: '--irreversible', says: 'level 2 without a header backup: nothing brings it back' },
    { flags: '--resume', says: 'finish a wipe that was interrupted' },
    { flags: '--accept-failures', says: 'with --resume: end it although steps keep failing' },
    uuidOption,
  ],
  examples: [
    { says: 'what would be destroyed?', run: 'holdfast vault panic /dev/sdb1 --level 2 --dry-run' },
    { says: 'prepare it; a code is shown', run: 'holdfast vault panic /dev/sdb1 --level 3' },
  ],
  exits: {
    refused: 'the code is wrong or expired, or nothing would bring the volume back',
    busy: 'another wipe is unfinished',
  },
  related: ['vault header backup', 'vault header restore'],
  load: async () => (await import('./vault-panic-actions.ts')).panicAction,
}

const exportCommand: CommandSpec = {
  name: 'export-request',
  summary: "export a binding's sealed secret for a colleague to open",
  about: [
    "For a technician at a site without network. What leaves is the sealed secret, which the header shows to anybody, and the technician's public key; the answer is readable with that private key only. Works for volumes that clevis bound.",
    'Both people can compare the digest over the telephone. Next: holdfast recover answer beside the key servers, then holdfast vault apply-answer here.',
  ],
  arguments: [deviceArgument],
  options: [
    ...volumeOptions,
    keyslotOption,
    {
      flags: '--technician <FILE>',
      says: "the technician's key, PEM, public or private; see holdfast holder keygen",
      completes: 'file',
    },
    {
      flags: '--out <FILE>',
      says: 'write the request to FILE; - is standard output',
      default: '-',
      completes: 'file',
    },
    ...pictureOptions,
  ],
  examples: [
    {
      says: 'as a file and as a picture',
      run: 'holdfast vault export-request /dev/sdb1 --technician tech.pub --out request.json --png request.png',
    },
  ],
  exits: { refused: 'the keyslot has no binding, or the key is too weak' },
  related: ['recover answer', 'vault apply-answer', 'holder keygen'],
  load: async () => (await offline()).exportAction,
}

const applyCommand: CommandSpec = {
  name: 'apply-answer',
  summary: "open the volume with the colleague's answer",
  about: [
    'Proves the answer at the real keyslot, marks the slot for regeneration and opens the volume. A passphrase that was read out over the telephone is given with --passphrase-file or --ask instead.',
  ],
  arguments: [
    deviceArgument,
    {
      name: 'ANSWER',
      says: 'file with the answer or parts of it, in any order; - is standard input',
      optional: true,
      repeat: true,
      completes: 'file',
    },
  ],
  options: [
    ...volumeOptions,
    {
      flags: '--request <FILE>',
      says: 'the request that was sent, or parts of it',
      repeat: true,
      completes: 'file',
    },
    {
      flags: '--technician <FILE>',
      says: "the technician's private key, PEM",
      completes: 'file',
    },
    {
      flags: '--key-passphrase-file <FILE>',
      says: "passphrase of the technician's key; - is standard input",
      completes: 'file',
    },
    ...accessOptions,
    { flags: '--name <NAME>', says: 'name of the mapping; default luks-UUID' },
    { flags: '--test', says: 'only prove that it opens' },
  ],
  examples: [
    {
      says: 'open with the answer',
      run: 'holdfast vault apply-answer /dev/sdb1 answer.txt --request request.json --technician tech.key --test',
    },
  ],
  exits: { integrity: 'the answer belongs to another request, or does not open the keyslot' },
  related: ['vault export-request', 'vault maintain'],
  load: async () => (await offline()).applyAction,
}

/** Header backups, panic, and recovery by a colleague. */
export const vaultRecoveryCommands: readonly CommandSpec[] = [
  headerCommand,
  panicCommand,
  exportCommand,
  applyCommand,
]

/** `holdfast recover` */
export const recoverCommand: CommandSpec = {
  name: 'recover',
  summary: 'help a technician at a site without network',
  examples: [
    {
      says: 'answer a request beside the key servers',
      run: 'holdfast recover answer request.json --digest DIGEST1 > answer.txt',
    },
  ],
  children: [
    {
      name: 'answer',
      summary: "open a request's secret and encrypt it to the technician alone",
      about: [
        'Run it where the key servers answer. The digest is compared with what the technician reads out before anything is answered: on a terminal it is asked for, elsewhere it is given with --digest. Requests that came as QR codes may be given as what zbarimg prints, parts in any order.',
      ],
      arguments: [
        {
          name: 'REQUEST',
          says: 'file with the request or parts of it; - is standard input',
          optional: true,
          repeat: true,
          completes: 'file',
        },
      ],
      options: [
        {
          flags: '--out <FILE>',
          says: 'write the answer to FILE; - is standard output',
          default: '-',
          completes: 'file',
        },
        {
          flags: '--digest <DIGEST>',
          says: 'what the technician reads out; a request with another one is refused',
        },
        ...pictureOptions,
        ...holderOptions,
        {
          flags: '--timeout <SECONDS>',
          says: 'how long one pin may take, in seconds',
          default: '10',
        },
      ],
      examples: [
        {
          says: 'answer a file',
          run: 'holdfast recover answer request.json --digest DIGEST1 --out answer.txt',
        },
        {
          says: 'answer a picture',
          run: 'zbarimg -q request.png | holdfast recover answer - --digest DIGEST1 --out answer.txt',
        },
      ],
      exits: {
        unavailable: 'too few key servers answer here',
        integrity: 'the digest is another one',
        refused: 'nobody has compared the digest',
        invalid: 'it is not a request, or a part is missing',
      },
      related: ['vault export-request', 'vault apply-answer'],
      load: async () => (await offline()).answerAction,
    },
  ],
}

/** `holdfast holder` */
export const holderCommand: CommandSpec = {
  name: 'holder',
  summary: 'keys of recovery holders and technicians, and what holders answer with them',
  examples: [{ says: 'make a key pair', run: 'holdfast holder keygen dave' }],
  children: [
    {
      name: 'keygen',
      summary: 'make a key pair: NAME.key, private, and NAME.pub for policies',
      about: [
        'Existing files are never replaced. An RSA key can be used with plain openssl and with HSMs; P-256 and X25519 are smaller and suit technicians. The same with openssl: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -aes256 -out NAME.key; openssl pkey -in NAME.key -pubout -out NAME.pub',
      ],
      arguments: [{ name: 'NAME', says: "the holder's name" }],
      options: [
        {
          flags: '--type <TYPE>',
          says: 'sort of key',
          choices: ['rsa3072', 'rsa4096', 'p256', 'x25519'],
          default: 'rsa3072',
        },
        { flags: '--out-dir <DIR>', says: 'where to write', default: '.', completes: 'directory' },
        {
          flags: '--passphrase-file <FILE>',
          says: 'encrypt the private key with this passphrase; - is standard input',
          completes: 'file',
        },
        { flags: '--ask', says: 'ask for the passphrase at the terminal' },
      ],
      examples: [{ says: 'a technician', run: 'holdfast holder keygen tech2 --type p256' }],
      exits: { refused: 'a file of that name is there' },
      related: ['seal', 'vault export-request'],
      load: async () => (await offline()).keygenAction,
    },
    ...holderCeremonyCommands,
  ],
}
