import { text } from 'node:stream/consumers'
import { runLoad } from './load.ts'
import type { LoadPlan } from './load-plan.ts'

// The load generator as a process of its own: a plan on standard input, a report on standard output.

// The plan comes from the bench that started this process, never from outside.
const plan = JSON.parse(await text(process.stdin)) as LoadPlan
process.stdout.write(JSON.stringify(await runLoad(plan)))
