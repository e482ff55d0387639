import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'

const actions = () => import('./doctor-actions.ts')

const codes = {
  0: 'nothing is wrong',
  1: 'it could not look: there is no such node, or no coordinator is known',
  2: 'a layer failed; it is named, with the next command',
  3: 'something is to be looked at before it fails',
} as const

/** `holdfast doctor` */
export const doctorCommand: CommandSpec = {
  name: 'doctor',
  summary: 'find out what is wrong, layer by layer, and what to type next',
  about: [
    'Looks from the bottom up: name, port, identity, clock; the state of the coordinator, its manifest, who asks, its holders; the session of a node, its phase, its ways in, its guardians, its margin, its services. It names the layer that failed, what is missing, and the next command. What rests on a failed layer is not looked at.',
    'Without more words it looks at the fleet of the coordinator that is logged in to. It changes nothing.',
  ],
  options: placeOptions,
  examples: [{ says: 'is all well?', run: 'holdfast doctor' }],
  codes,
  related: ['status', 'node show'],
  load: async () => (await actions()).fleetAction,
  children: [
    {
      name: 'fleet',
      summary: 'the coordinator and all of its nodes',
      options: placeOptions,
      examples: [{ says: 'what needs somebody?', run: 'holdfast doctor fleet' }],
      codes,
      related: ['status', 'node list'],
      load: async () => (await actions()).fleetAction,
    },
    {
      name: 'coordinator',
      summary: 'a coordinator: from its name to its holders',
      options: placeOptions,
      examples: [{ says: 'why does it not answer?', run: 'holdfast doctor coordinator' }],
      codes,
      related: ['coordinator status', 'coordinator recover'],
      load: async () => (await actions()).coordinatorAction,
    },
    {
      name: 'node',
      summary: 'one node: through the coordinator, directly, or on its own console',
      about: [
        'With NAME: as the coordinator sees it; the node is asked for its status and, when it is open, to rehearse. With --at: directly at its peer port, or a new machine that waits to be enrolled. With neither: the machine that the command runs on, from its own files; --device also looks at its disk.',
      ],
      arguments: [{ name: 'NAME', says: 'its name, or the beginning of its id', optional: true }],
      options: [
        { flags: '--quick', says: 'do not ask the node to rehearse, nor read its log of releases' },
        {
          flags: '--at <ADDRESS>',
          says: 'without a coordinator: HOST or HOST:PORT of its peer port',
        },
        { flags: '--pin <ID>', says: 'with --at: the id of the node, 43 characters' },
        {
          flags: '--directory <DIR>',
          says: "on its own console: the agent's directory; default the state directory",
          completes: 'directory',
        },
        {
          flags: '--device <DEVICE>',
          says: 'on its own console: the disk that holds the vault',
          completes: 'file',
        },
        ...placeOptions,
      ],
      examples: [
        { says: 'why is it locked?', run: 'holdfast doctor node node-1' },
        {
          says: 'when the coordinator is away',
          run: 'holdfast doctor node --at node1.example.com:9998 --pin NODE1',
        },
        {
          says: 'on its own console',
          run: 'holdfast doctor node --directory /srv/node-1 --device /dev/node-1',
        },
      ],
      codes,
      related: ['node show', 'node unlock'],
      load: async () => (await actions()).nodeAction,
    },
  ],
}
