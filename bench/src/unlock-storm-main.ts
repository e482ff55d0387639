import { text } from 'node:stream/consumers'
import type { UnlockPlan } from './unlock-plan.ts'
import { runUnlocks } from './unlock-storm.ts'

// The wards as a process of their own: a plan on standard input, a report on standard output.

// The plan comes from the bench that started this process, never from outside.
const plan = JSON.parse(await text(process.stdin)) as UnlockPlan
process.stdout.write(JSON.stringify(await runUnlocks(plan)))
