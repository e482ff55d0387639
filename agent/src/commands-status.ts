import { commandData } from '@holdfast/protocol/commands'
import type { CommandHandler } from './command-handler.ts'
import type { HandlerDeps } from './handler-deps.ts'
import { publicPem } from './identity.ts'

/** How the node stands, and what holders need to open its vault from afar. */
export function statusHandler({
  report,
  vault,
  exchange,
}: Pick<HandlerDeps, 'report' | 'vault' | 'exchange'>): CommandHandler<'status'> {
  return {
    restart: 'unrecorded',
    run: async () => ({
      report: await report(),
      exchange: publicPem(exchange),
      recovery: await vault.recoveryWays(),
    }),
  }
}

/** Tries every way in without opening anything. */
export function rehearseHandler({
  rehearse,
}: Pick<HandlerDeps, 'rehearse'>): CommandHandler<'rehearse'> {
  return {
    restart: 'again',
    lane: 'vault',
    run: async () => commandData.rehearse.parse(await rehearse()),
  }
}
