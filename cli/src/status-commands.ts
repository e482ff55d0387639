import type { CommandSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'

/** `holdfast status` */
export const statusCommand: CommandSpec = {
  name: 'status',
  summary: 'one look at the coordinator and its nodes',
  about: ['For a person at a glance and for monitoring by its exit code.'],
  options: placeOptions,
  examples: [
    { says: 'how is everything?', run: 'holdfast status' },
    { says: 'for a program', run: `holdfast status --json | jq .state` },
  ],
  codes: {
    0: 'running',
    1: 'the status cannot be had: not reachable, or another identity answers',
    2: 'sealed, or in recovery: people or a key are needed',
    3: 'it waits for its owner: for a claim or for the manifest',
  },
  related: ['doctor', 'node list', 'coordinator status'],
  load: async () => (await import('./status-actions.ts')).statusAction,
}
