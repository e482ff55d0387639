import type { CommandHandler } from './command-handler.ts'
import type { HandlerDeps } from './handler-deps.ts'

/**
 * Opens the vault with a pushed passphrase. It is never written down, not even sealed: the key that it
 * is sealed for lies on the same disk.
 */
export function unlockHandler({
  push,
  report,
}: Pick<HandlerDeps, 'push' | 'report'>): CommandHandler<'unlock'> {
  return {
    restart: 'interrupted',
    run: async ({ given }) => {
      await push(given.sealed)
      return { report: await report() }
    },
  }
}
