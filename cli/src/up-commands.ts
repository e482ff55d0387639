import type { CommandSpec, OptionSpec } from './command.ts'

const actions = () => import('./up-actions.ts')

/** Where the local fleet is. */
export const directoryOption: OptionSpec = {
  flags: '--directory <DIR>',
  says: 'where everything of it lies; default fleet/ in /run/holdfast for root, else in $XDG_RUNTIME_DIR/holdfast',
  completes: 'directory',
}

const serverArgument = { name: 'SERVER', says: 'its name, such as server-1 or coordinator-1' }

/** `holdfast up` */
export const upCommand: CommandSpec = {
  name: 'up',
  summary: 'start a local fleet and keep every way in rehearsed',
  about: [
    'Starts three key servers, a coordinator on SQLite and six nodes, all in processes of their own and with real LUKS2 volumes. The coordinator is claimed, two of three holders prove their shares of its key, and the nodes are enrolled: the first by genesis, bound to the holders until the others can guard it. It is ready when every node is opened by guardians, together with two of the three key servers, and by nothing temporary.',
    'Beside them lies a volume of its own, vault.img, bound to two of the three servers with a recovery slot for two of the three holders.',
    'Then it stays up, lets the nodes prove every way in, one after the other, and shows a live table: the phase of each node, its guardians, how many may fail, its last proof; the coordinator; the pins of the volume. On a terminal the table is redrawn in place; elsewhere changes are printed as lines.',
    'It says what to try in a second terminal. In its directory commands talk to its coordinator as its owner. Ctrl-C stops what it started and removes its files.',
    'The private keys of the holders lie in its directory, so that one person can play all of them: it is for trying things out.',
  ],
  options: [
    directoryOption,
    {
      flags: '--nodes <COUNT>',
      says: 'nodes to enrol, 3 to 20; with 0 there are only the key servers and the volume',
      default: '6',
    },
    { flags: '--interval <SECONDS>', says: 'pause between rehearsals, in seconds', default: '5' },
    { flags: '--exit-when-ready', says: 'clean up and end as soon as every way in is proven' },
  ],
  examples: [
    { says: 'see it work', run: 'holdfast up' },
    { says: 'in a script', run: 'holdfast up --json --exit-when-ready' },
  ],
  exits: {
    busy: 'one is running already in this directory',
    absent: 'cryptsetup is not installed',
    unavailable: 'with --exit-when-ready: a way in is not proven',
  },
  related: ['drill list', 'vault rehearse', 'coordinator seal'],
  load: async () => (await actions()).upAction,
  children: [
    {
      name: 'status',
      summary: 'what the running local fleet looks like now',
      options: [directoryOption],
      examples: [{ says: 'as JSON', run: 'holdfast up status --json' }],
      exits: { absent: 'none is running' },
      related: ['up'],
      load: async () => (await actions()).upStatusAction,
    },
    {
      name: 'stop',
      summary: 'stop one key server or the coordinator of the running local fleet',
      arguments: [serverArgument],
      options: [directoryOption],
      examples: [{ says: 'one of three down', run: 'holdfast up stop server-1' }],
      exits: { absent: 'none is running, or there is no such server' },
      related: ['up start'],
      load: async () => (await actions()).upStopAction,
    },
    {
      name: 'start',
      summary: 'start a stopped key server or coordinator again, on the same address',
      arguments: [serverArgument],
      options: [directoryOption],
      examples: [{ says: 'bring it back', run: 'holdfast up start server-1' }],
      exits: { absent: 'none is running, or there is no such server' },
      related: ['up stop'],
      load: async () => (await actions()).upStartAction,
    },
  ],
}

/** `holdfast drill` */
export const drillCommand: CommandSpec = {
  name: 'drill',
  summary: 'disasters, executed for real on servers and volumes made for it',
  about: ['Nothing outside the directory that a drill makes is touched.'],
  examples: [{ says: 'which are there?', run: 'holdfast drill list' }],
  children: [
    {
      name: 'list',
      summary: 'list the drills',
      examples: [{ says: 'which are there?', run: 'holdfast drill list' }],
      related: ['drill run'],
      load: async () => (await import('./drill-actions.ts')).listAction,
    },
    {
      name: 'run',
      summary: 'run a drill, or all of them, and print a timeline with evidence',
      arguments: [
        { name: 'NAME', says: 'names, as holdfast drill list shows', optional: true, repeat: true },
      ],
      options: [
        { flags: '--all', says: 'run every drill, one after another' },
        {
          flags: '--directory <DIR>',
          says: 'where scratch directories are made; default the runtime directory',
          completes: 'directory',
        },
        { flags: '--timeout <SECONDS>', says: 'for each drill, in seconds', default: '120' },
      ],
      examples: [
        { says: 'a node is stolen', run: 'holdfast drill run node-stolen' },
        {
          says: 'all; one object a line, as each drill ends',
          run: 'holdfast drill run --all --json',
        },
      ],
      exits: {
        integrity: 'a drill did not pass; the answer says which and why',
        usage: 'there is no drill of that name',
      },
      related: ['drill list', 'up'],
      load: async () => (await import('./drill-actions.ts')).runAction,
    },
  ],
}
