import { simulate } from './simulation.ts'
import { SimulationFailure } from './world.ts'

// node test/src/simulator/replay.ts SEED [COUNT]: lives one history again and prints all of it, or looks for
// the first of COUNT seeds that breaks a rule.

const [first = 1, count = 1] = process.argv.slice(2).map(Number)

try {
  for (let seed = first; seed < first + count; seed += 1) {
    const { trace, ...result } = simulate({ seed })
    const lines = count === 1 ? trace() : []
    process.stdout.write(`${[...lines, JSON.stringify(result)].join('\n')}\n`)
  }
} catch (error) {
  if (!(error instanceof SimulationFailure)) throw error
  process.stdout.write(`${error.trace.join('\n')}\n`)
  process.stderr.write(`seed ${error.seed}: ${error.rule}\n`)
  process.exitCode = 1
}
