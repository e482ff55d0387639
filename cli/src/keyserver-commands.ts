import type { CommandSpec, OptionSpec } from './command.ts'
import { holderOptions } from './options.ts'

const actions = () => import('./keyserver-actions.ts')

const targetOptions: readonly OptionSpec[] = [
  {
    flags: '--directory <DIR>',
    says: 'the key directory; a server that serves it notices changes within a second',
    completes: 'directory',
  },
  {
    flags: '--admin <SOCKET>',
    says: 'the administration socket of a running server; changes hold for all its processes on return',
    completes: 'file',
  },
]

const curveOption: OptionSpec = {
  flags: '--curve <CURVE>',
  says: 'curve of the new keys; default that of the key replaced, or P-521',
  choices: ['P-521', 'P-384', 'P-256'],
}

const serveCommand: CommandSpec = {
  name: 'serve',
  summary: 'serve a key directory in the Tang protocol',
  about: [
    "Speaks tangd's protocol over tangd's own key directory, so that either program can serve it. Prints one line when it listens and runs until Ctrl-C or SIGTERM.",
    'An empty or unreadable directory is refused unless --init makes the first keys: an unmounted volume must not become a new key server. Keys that others could write are refused. GET /healthz and /metrics are answered beside /adv and /rec.',
  ],
  options: [
    {
      flags: '--directory <DIR>',
      says: 'the key directory, such as /var/lib/tang',
      completes: 'directory',
    },
    { flags: '--host <ADDRESS>', says: 'address to listen on', default: '127.0.0.1' },
    { flags: '--port <PORT>', says: 'port to listen on; 0 takes a free one', default: '7500' },
    {
      flags: '--init <CURVE>',
      says: 'make the first keys when there are none',
      choices: ['P-521', 'P-384', 'P-256'],
    },
    { flags: '--workers <COUNT>', says: 'server processes besides this one', default: '0' },
    {
      flags: '--admin <SOCKET>',
      says: 'path of the administration socket; default a new private folder',
      completes: 'file',
    },
    {
      flags: '--audit <WHERE>',
      says: 'log of recoveries: stdout, none or a file',
      default: 'none',
    },
    {
      flags: '--rate <COUNT>',
      says: 'requests per second granted to one address; 0 for no limit',
      default: '1000',
    },
    {
      flags: '--log <LEVEL>',
      says: 'least level logged on standard error',
      choices: ['debug', 'info', 'warn', 'error', 'silent'],
      default: 'warn',
    },
  ],
  examples: [
    {
      says: 'a new key server on all addresses',
      run: 'holdfast keyserver serve --directory keys --init P-521 --host 0.0.0.0 --port 7500',
    },
    {
      says: "take over tangd's keys, two processes",
      run: 'holdfast keyserver serve --directory /var/lib/tang --workers 2 --audit stdout',
    },
  ],
  exits: {
    refused: 'the directory holds no keys, or others may write them',
    absent: 'the directory cannot be read',
    unavailable: 'the port is taken',
    integrity: 'the self-test against OpenSSL failed',
  },
  related: ['keyserver keys', 'keyserver rotate', 'keyserver backup'],
  load: async () => (await actions()).serveAction,
}

const keysCommand: CommandSpec = {
  name: 'keys',
  summary: 'list the keys of a directory with their last use',
  about: [
    'Advertised keys first, then hidden ones (they still answer), then retired ones. The thumbprint of an advertised signing key is what clients pin as "thp".',
  ],
  options: targetOptions,
  examples: [{ says: 'list them', run: 'holdfast keyserver keys --directory /var/lib/tang' }],
  exits: { absent: 'the directory cannot be read' },
  related: ['keyserver rotate', 'keyserver retire'],
  load: async () => (await actions()).keysAction,
}

const rotateCommand: CommandSpec = {
  name: 'rotate',
  summary: 'make new keys and hide the old ones, which go on answering',
  about: [
    'New keys are durable before the first old one is hidden. The new advertisement is signed by the old signing key too, so clients that have a binding to the old one accept it. A thumbprint (thp) that stands in a policy or in the manifest has to be exchanged before new bindings are made: nodes that enrol, too. Then move the bindings (holdfast vault regen) and retire the old keys.',
  ],
  options: [
    ...targetOptions,
    curveOption,
    {
      flags: '--only <USE>',
      says: 'replace only these keys',
      choices: ['signing', 'exchange'],
    },
    { flags: '--prefix <NAME>', says: 'the exchange key of this prefix instead of the main set' },
  ],
  examples: [
    { says: 'replace both keys', run: 'holdfast keyserver rotate --directory /var/lib/tang' },
  ],
  exits: { busy: 'another change is under way', absent: 'there is no such prefix' },
  related: ['keyserver retire', 'vault regen'],
  load: async () => (await actions()).rotateAction,
}

const retireCommand: CommandSpec = {
  name: 'retire',
  summary: 'destroy hidden keys that nobody needs any more',
  about: [
    'Without names every hidden key goes that was neither used nor advertised lately and that no binding needs. This cannot be undone: what is bound to a destroyed key never opens through it again.',
    'With --force the named keys go although they are in use, and the answer says what that strands.',
  ],
  arguments: [{ name: 'KID', says: "a key's thumbprint", optional: true, repeat: true }],
  options: [
    ...targetOptions,
    { flags: '--unused-days <DAYS>', says: 'days since last use and since hiding', default: '30' },
    {
      flags: '--needed <FILE>',
      says: 'thumbprints that bindings still need, one a line, as holdfast vault list --kids prints them',
      completes: 'file',
    },
    { flags: '--force', says: 'destroy the named keys although they are used or needed' },
    { flags: '--dry-run', says: 'only say what would happen' },
  ],
  examples: [
    {
      says: 'what would go',
      run: 'holdfast keyserver retire --directory /var/lib/tang --dry-run',
    },
  ],
  exits: { refused: 'a named key is advertised, in use or needed', absent: 'no such key' },
  related: ['keyserver rotate', 'keyserver keys'],
  load: async () => (await actions()).retireAction,
}

const directoryOption: OptionSpec = {
  flags: '--directory <DIR>',
  says: 'the key directory, such as /var/lib/tang',
  completes: 'directory',
}

const pinPassphrase: OptionSpec = {
  flags: '--passphrase-file <FILE>',
  says: 'the passphrase of a passphrase pin; - is standard input',
  completes: 'file',
}

const backupCommand: CommandSpec = {
  name: 'backup',
  summary: 'seal the whole key directory, hidden keys included, under a policy',
  about: [
    'Every key is proven to work before it is sealed. Losing a key server without a backup loses every way in through it.',
  ],
  options: [
    directoryOption,
    { flags: '--policy <FILE>', says: 'policy file, usually of holders', completes: 'file' },
    {
      flags: '--out <FILE>',
      says: 'write the sealed backup to FILE, mode 0600',
      completes: 'file',
    },
    pinPassphrase,
  ],
  examples: [
    {
      says: 'sealed to the holders',
      run: 'holdfast keyserver backup --directory /var/lib/tang --policy holders.json --out tang.backup',
    },
  ],
  exits: { refused: 'the directory holds no key', integrity: 'a key in it does not work' },
  related: ['keyserver restore'],
  load: async () => (await actions()).backupAction,
}

const restoreCommand: CommandSpec = {
  name: 'restore',
  summary: 'restore a sealed backup and prove it by performing a recovery with every key',
  about: [
    'Restores into an empty directory, or with --merge beside other keys. Keys that were destroyed here on purpose stay destroyed without --revive. An interrupted restore goes on when it is run again.',
  ],
  arguments: [
    { name: 'BACKUP', says: 'the sealed backup; - is standard input', completes: 'file' },
  ],
  options: [
    directoryOption,
    { flags: '--merge', says: "add the backup's keys beside those that are there" },
    { flags: '--revive', says: 'bring back keys that were destroyed here on purpose' },
    {
      flags: '--expect <THP>',
      says: 'thumbprint of a key that the backup must hold, such as the signing key that clients have pinned',
      repeat: true,
    },
    ...holderOptions,
    pinPassphrase,
  ],
  examples: [
    {
      says: 'two holders restore a reinstalled server',
      run: 'holdfast keyserver restore tang.backup --directory new-keys --holder-key alice=alice.key --holder-key bob=bob.key',
    },
  ],
  exits: {
    refused: 'the directory holds other keys',
    unavailable: 'too few holders opened it',
    integrity: 'a key that was read back does not work, or an expected one is not in it',
  },
  related: ['keyserver backup', 'keyserver serve'],
  load: async () => (await actions()).restoreAction,
}

const prefixCommand: CommandSpec = {
  name: 'prefix',
  summary: 'exchange keys of their own for single clients or groups',
  about: [
    'A prefix is a base address of its own, http://SERVER/p/NAME, with its own exchange key, so that one client can be revoked alone; clients need nothing but clevis.',
  ],
  examples: [
    {
      says: 'an address for one client',
      run: 'holdfast keyserver prefix add laptop-7 --directory /var/lib/tang',
    },
  ],
  related: ['keyserver keys'],
  children: [
    {
      name: 'add',
      summary: 'make a prefix with a new exchange key',
      arguments: [{ name: 'NAME', says: 'up to 63 of a-z, 0-9, dot, hyphen and underscore' }],
      options: [...targetOptions, curveOption],
      examples: [
        {
          says: 'an address for one client',
          run: 'holdfast keyserver prefix add laptop-7 --directory /var/lib/tang',
        },
      ],
      exits: { refused: 'the prefix exists', usage: 'the name cannot be a prefix' },
      related: ['keyserver prefix revoke'],
      load: async () => (await actions()).prefixAddAction,
    },
    {
      name: 'revoke',
      summary: 'destroy the keys of a prefix: its clients never open through this server again',
      arguments: [{ name: 'NAME', says: 'the prefix' }],
      options: targetOptions,
      examples: [
        {
          says: 'a laptop was stolen',
          run: 'holdfast keyserver prefix revoke laptop-7 --directory /var/lib/tang',
        },
      ],
      exits: { absent: 'there is no such prefix' },
      related: ['keyserver prefix add'],
      load: async () => (await actions()).prefixRevokeAction,
    },
    {
      name: 'list',
      summary: 'list the prefixes with their keys and last use',
      options: targetOptions,
      examples: [
        { says: 'list them', run: 'holdfast keyserver prefix list --directory /var/lib/tang' },
      ],
      related: ['keyserver keys'],
      load: async () => (await actions()).prefixListAction,
    },
  ],
}

const compromiseCommand: CommandSpec = {
  name: 'compromise',
  summary: 'record that key material may be known to others',
  examples: [
    {
      says: 'a copy of the keys left the house',
      run: 'holdfast keyserver compromise mark KID1 --note "carried to site 4" --directory /var/lib/tang',
    },
  ],
  children: [
    {
      name: 'mark',
      summary: 'mark keys as compromised',
      about: [
        'The keys go on answering until they are retired: the machines bound to them must be moved first. Then: holdfast keyserver rotate, holdfast vault regen on each machine, holdfast keyserver retire.',
      ],
      arguments: [{ name: 'KID', says: "a key's thumbprint", repeat: true }],
      options: [
        ...targetOptions,
        { flags: '--note <TEXT>', says: 'what happened, for the record' },
      ],
      examples: [
        {
          says: 'a copy of the keys left the house',
          run: 'holdfast keyserver compromise mark KID1 --note "carried to site 4" --directory /var/lib/tang',
        },
      ],
      exits: { absent: 'there is no such key' },
      related: ['keyserver rotate', 'keyserver retire'],
      load: async () => (await actions()).compromiseMarkAction,
    },
  ],
}

const statusCommand: CommandSpec = {
  name: 'status',
  summary: 'ask a running server how it is',
  options: targetOptions,
  examples: [{ says: 'ask it', run: 'holdfast keyserver status --admin admin.sock' }],
  exits: { unavailable: 'no server answers on the socket, or it cannot answer recoveries' },
  related: ['keyserver keys', 'keyserver hold'],
  load: async () => (await actions()).statusAction,
}

const holdCommand: CommandSpec = {
  name: 'hold',
  summary: 'answer recoveries with 503 until released',
  about: ['Survives a restart. Advertisements are still served.'],
  arguments: [{ name: 'REASON', says: 'why, for whoever looks' }],
  options: targetOptions,
  examples: [
    {
      says: 'while a theft is looked into',
      run: 'holdfast keyserver hold "rack 4 is missing" --directory /var/lib/tang',
    },
  ],
  related: ['keyserver release'],
  load: async () => (await actions()).holdAction,
}

const releaseCommand: CommandSpec = {
  name: 'release',
  summary: 'answer recoveries again',
  options: targetOptions,
  examples: [{ says: 'end a hold', run: 'holdfast keyserver release --directory /var/lib/tang' }],
  related: ['keyserver hold'],
  load: async () => (await actions()).releaseAction,
}

const workerCommand: CommandSpec = {
  name: 'worker',
  summary: 'a server process of holdfast keyserver serve',
  examples: [],
  hidden: true,
  load: async () => (await actions()).workerAction,
}

/** `holdfast keyserver` */
export const keyserverCommand: CommandSpec = {
  name: 'keyserver',
  summary: 'run and administer a key server that speaks the Tang protocol',
  examples: [
    {
      says: 'a new key server',
      run: 'holdfast keyserver serve --directory keys --init P-521 --port 7500',
    },
  ],
  children: [
    serveCommand,
    keysCommand,
    rotateCommand,
    retireCommand,
    backupCommand,
    restoreCommand,
    prefixCommand,
    compromiseCommand,
    statusCommand,
    holdCommand,
    releaseCommand,
    workerCommand,
  ],
}
