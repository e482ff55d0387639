import { messageOf, type RunOptions, run, type Secret } from '@holdfast/base'
import { childrenTime } from './process-cpu.ts'
import { type Figures, median } from './statistics.ts'

/** One way to do a piece of work that is to be timed. */
export interface Contender {
  readonly name: string
  /** Does it once and says what came out, to be compared with the others. */
  once(): Promise<string>
}

/** A contender that is a command with everything it runs. */
export function command(
  name: string,
  program: string,
  args: readonly string[],
  options: RunOptions & { input?: Secret | string } = {},
): Contender {
  return {
    name,
    once: async () => (await run(program, args, options)).stdout.toString('utf8'),
  }
}

/** Times of one contender over one round: the median wall time and the mean processor time. */
export interface Timing extends Figures {
  readonly wallMs: number
  readonly cpuMs: number
}

/**
 * Times the contenders in turn, `rounds` times `perRound` runs each, after one uncounted run each.
 * Every run must give `expected`. Processor time is that of this process, or of the commands that it
 * ran; it is counted by the kernel in steps of 10 ms, so a round is long enough to average that out.
 */
export async function timeContenders(
  contenders: readonly Contender[],
  expected: string,
  rounds: number,
  perRound: number,
): Promise<Record<string, Timing[]>> {
  const report = Object.fromEntries(contenders.map(({ name }) => [name, [] as Timing[]]))
  for (const contender of contenders) await timeRound(contender, expected, 1)
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of contenders) {
      report[contender.name]?.push(await timeRound(contender, expected, perRound))
    }
  }
  return report
}

async function timeRound(
  contender: Contender,
  expected: string,
  perRound: number,
): Promise<Timing> {
  const own = process.cpuUsage()
  const children = childrenTime()
  const walls: number[] = []
  for (let index = 0; index < perRound; index += 1) {
    const start = performance.now()
    const output = await contender.once().catch((error: unknown) => {
      throw new Error(`${contender.name} failed: ${messageOf(error)}`)
    })
    walls.push(performance.now() - start)
    if (output !== expected) throw new Error(`${contender.name} gave another result than it must`)
  }
  const ran = childrenTime() - children
  const used = process.cpuUsage(own)
  // Waiting for a command costs this process little, but it is not the command's.
  const micros = ran > 0 ? ran : used.user + used.system
  return { wallMs: median(walls), cpuMs: micros / 1000 / perRound }
}
