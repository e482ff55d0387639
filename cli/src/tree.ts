import { agentCommand } from './agent-commands.ts'
import { auditCommand } from './audit-commands.ts'
import type { CommandSpec } from './command.ts'
import { coordinatorCommand } from './coordinator-commands.ts'
import { doctorCommand } from './doctor-commands.ts'
import { exposureCommand } from './exposure-commands.ts'
import { completionCommand, helpCommand } from './help-commands.ts'
import { keyserverCommand } from './keyserver-commands.ts'
import { manifestCommand } from './manifest-commands.ts'
import { nodeCommand } from './node-commands.ts'
import { sealCommands } from './seal-commands.ts'
import { statusCommand } from './status-commands.ts'
import { drillCommand, upCommand } from './up-commands.ts'
import { vaultCommand } from './vault-commands.ts'
import { holderCommand, recoverCommand } from './vault-recovery-commands.ts'

/** Every command of `holdfast`. */
export const commandTree: CommandSpec = {
  name: 'holdfast',
  summary: 'keep encrypted machines openable, updatable and recoverable',
  about: [
    'Secrets are sealed under policies of pins: key servers, TPMs, named holders, passphrases, and thresholds of them. Every way in is rehearsed, and none is removed before its successor has been proven.',
    'Answers go to standard output, everything else to standard error. Secrets are read from files, descriptors, standard input or the terminal, never from arguments or the environment.',
  ],
  examples: [
    {
      says: 'see it work on this machine, with real servers and a real volume',
      run: 'holdfast up',
    },
    { says: 'what every exit code means', run: 'holdfast help exit-codes' },
  ],
  children: [
    ...sealCommands,
    keyserverCommand,
    vaultCommand,
    exposureCommand,
    recoverCommand,
    coordinatorCommand,
    agentCommand,
    nodeCommand,
    statusCommand,
    doctorCommand,
    manifestCommand,
    holderCommand,
    auditCommand,
    drillCommand,
    upCommand,
    completionCommand,
    helpCommand,
  ],
}
