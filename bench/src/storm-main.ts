import { text } from 'node:stream/consumers'
import { runStorm } from './storm.ts'
import type { StormPlan } from './storm-plan.ts'

// The storm's clients as a process of their own: a plan on standard input, a report on standard output.

// The plan comes from the bench that started this process, never from outside.
const plan = JSON.parse(await text(process.stdin)) as StormPlan
process.stdout.write(JSON.stringify(await runStorm(plan)))
