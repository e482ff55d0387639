import type { CommandHandlers } from './command-handler.ts'
import { leaveHandler, panicHandler, resetHandler } from './commands-end.ts'
import { rekeyHandler } from './commands-rekey.ts'
import { rehearseHandler, statusHandler } from './commands-status.ts'
import { unlockHandler } from './commands-unlock.ts'
import type { HandlerDeps } from './handler-deps.ts'

/** Every command that this agent knows. */
export function handlersOf(deps: HandlerDeps): CommandHandlers {
  return {
    ...deps.works.handlers(),
    status: statusHandler(deps),
    rehearse: rehearseHandler(deps),
    unlock: unlockHandler(deps),
    leave: leaveHandler(deps),
    reset: resetHandler(deps),
    panic: panicHandler(deps),
    rekey: rekeyHandler(deps),
  }
}
