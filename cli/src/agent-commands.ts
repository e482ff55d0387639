import type { CommandSpec } from './command.ts'

/** `holdfast agent` */
export const agentCommand: CommandSpec = {
  name: 'agent',
  summary: 'run the agent of a node',
  about: [
    'Besides init the only process of a node that runs as root. A new one shows a code on the console and waits to be enrolled; an enrolled one opens the vault, guards the shares of others, and keeps a session with the coordinator.',
  ],
  examples: [
    {
      says: 'on a new machine',
      run: 'holdfast agent serve --device /dev/sdb1 --directory node --enrolment-port 9999 --peer-port 9998',
    },
  ],
  children: [
    {
      name: 'serve',
      summary: 'run the agent of this machine',
      about: [
        'Prints one line when it runs, and one line of JSON on standard error for each event. It runs until Ctrl-C or SIGTERM, and goes on from wherever it was stopped.',
        'A disk that carries anything is never formatted.',
      ],
      options: [
        {
          flags: '--directory <DIR>',
          says: "the node's keys and boot state, outside the vault; default the state directory",
          completes: 'directory',
        },
        {
          flags: '--runtime <DIR>',
          says: 'on a tmpfs: what must not survive a power cut; default the runtime directory',
          completes: 'directory',
        },
        {
          flags: '--device <DEVICE>',
          says: 'the disk that is, or becomes, the vault; required',
          completes: 'file',
        },
        { flags: '--host <ADDRESS>', says: 'address to listen on; default all of them' },
        {
          flags: '--console <FILE>',
          says: 'terminal that alone shows the enrolment code; default standard error',
          completes: 'file',
        },
        {
          flags: '--mount <DIR>',
          says: 'where the opened vault is mounted; default /var/lib/holdfast-vault',
          completes: 'directory',
        },
        {
          flags: '--reboot-command <WORDS>',
          says: 'a program that reboots the machine, without a shell; default systemd where it runs',
        },
        {
          flags: '--boot-id <FILE>',
          says: "has another text after every boot; default the kernel's",
          completes: 'file',
        },
        { flags: '--enrolment-port <PORT>', says: 'while it is new', default: '9999' },
        { flags: '--peer-port <PORT>', says: 'for the nodes it guards', default: '9998' },
        { flags: '--wireguard-port <PORT>', says: 'for tunnels, by UDP', default: '51820' },
        {
          flags: '--tunnel <NAME>',
          says: "the tunnel's network interface, or off",
          default: 'holdfast0',
        },
        {
          flags: '--tpm <TCTI>',
          says: "what seals the node's keys, as tpm2-tools name it, or off; default /dev/tpmrm0 if there",
        },
      ],
      examples: [
        {
          says: 'on a new machine',
          run: 'holdfast agent serve --device /dev/sdb1 --directory node --enrolment-port 9999 --peer-port 9998',
        },
      ],
      exits: {
        busy: 'an agent runs in this directory already',
        integrity: 'the keys or the boot state are damaged',
        absent: 'one of the two is missing: it is not taken for a new machine',
      },
      related: ['coordinator status', 'up'],
      load: async () => (await import('./agent-actions.ts')).serveAction,
    },
  ],
}
