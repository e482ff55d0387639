import { messageOf } from '@holdfast/base'
import { AgentsLoad } from './agents-load.ts'
import type { AgentsOrder } from './agents-plan.ts'

// The agents as a process of their own; it ends with the one that started it.

const [cluster = ''] = process.argv.slice(2)
const load = new AgentsLoad(cluster)
process.on('disconnect', () => process.exit(0))
// The orders come from the bench that started this process, never from outside.
process.on('message', (order: AgentsOrder) => {
  load.obey(order).then(
    (figures) => process.send?.({ figures }),
    (error: unknown) => process.send?.({ figures: {}, failure: messageOf(error) }),
  )
})
