import type { CommandHandler } from './command-handler.ts'
import type { HandlerDeps } from './command-table.ts'
import { agentFault } from './faults.ts'

// Ends of a node's life begin here; the life carries them out, over restarts, and answers when they
// are over.

type Deps = Pick<HandlerDeps, 'tell' | 'ending'>

async function begin({ tell, ending }: Deps, kind: 'leave' | 'wipe', command: string) {
  if (ending() === command) return undefined
  if (await tell({ kind, command })) return undefined
  throw agentFault('agent.command_refused', `this node cannot ${kind} in its present phase`)
}

export function leaveHandler(deps: Deps): CommandHandler<'leave'> {
  return { restart: 'again', run: ({ id }) => begin(deps, 'leave', id) }
}

export function resetHandler(deps: Deps): CommandHandler<'reset'> {
  return { restart: 'again', run: ({ id }) => begin(deps, 'wipe', id) }
}
