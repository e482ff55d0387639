import type { CommandData, FirstBootStep } from '@holdfast/protocol/commands'
import type { CommandHandler } from './command-handler.ts'
import type { FirstBootOrder } from './first-boot.ts'

/** Makes what a first boot makes, as far as it is missing, and anew what is named. */
export function firstBootHandler(
  converge: (order: FirstBootOrder) => Promise<CommandData<'first-boot'>['steps']>,
): CommandHandler<'first-boot'> {
  return {
    restart: 'again',
    lane: 'services',
    run: async ({ id, given }) => {
      const renew: readonly FirstBootStep[] = given.renew
      return { steps: await converge({ renew, command: id }) }
    },
  }
}
