import { systemClock } from '@holdfast/base'
import type { CommandHandler } from './command-handler.ts'
import { agentFault } from './faults.ts'
import type { HandlerDeps } from './handler-deps.ts'

const lookAgain = 500
/** Milliseconds that a node which has just started is given to open by itself. */
const patience = 30_000

/**
 * A new passphrase in every way that the node can open by itself. Interrupted, it is begun anew: what
 * was renewed is renewed once more, and at every moment each way has a passphrase that opens.
 */
export function rekeyHandler({
  vault,
  phase,
}: Pick<HandlerDeps, 'vault' | 'phase'>): CommandHandler<'rekey'> {
  return {
    restart: 'again',
    lane: 'vault',
    run: async ({ signal, progress, again }) => {
      // It was begun on an open vault, or arrived at one: the restart has yet to open it again.
      const deadline = performance.now() + patience
      while (phase() === 'locked' && (again || performance.now() < deadline))
        await systemClock.sleep(lookAgain, signal)
      if (phase() !== 'open')
        throw agentFault('agent.command_refused', 'a vault is rekeyed while it is open', {
          hint: 'open it first: holdfast node unlock',
        })
      let done = 0
      const ways = await vault.rekey(signal, ({ keyslot, outcome }, of) => {
        done += 1
        progress(`keyslot ${keyslot}: ${outcome}`, done, of)
      })
      return { ways: ways.map((way) => ({ ...way })) }
    },
  }
}
