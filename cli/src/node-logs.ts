import type { Context } from './command.ts'
import type { Input } from './input.ts'
import { logText } from './log-line.ts'
import { limitsOf, order } from './node-order.ts'
import type { Client, Node } from './node-place.ts'
import { painter } from './output.ts'

// Following a node's log: it is asked again and again for its last lines, and what was not there the
// last time is shown. Each look is a command of its own, with its entry in the audit log.

/** Milliseconds between looks. */
const pause = 3000

/** Arguments of the command `logs` from the command line. */
export function logArguments(input: Input): Record<string, unknown> {
  const service = input.word(1)
  const since = input.count('since', 1, 527_040)
  return {
    lines: input.count('lines', 1, 2000) ?? 200,
    ...(service === undefined ? {} : { service }),
    ...(since === undefined ? {} : { sinceMinutes: since }),
  }
}

/** The lines that have come since: what follows the longest end of `before` that `after` begins with. */
export function newLines(before: readonly string[], after: readonly string[]): readonly string[] {
  for (let common = Math.min(before.length, after.length); common > 0; common -= 1) {
    const start = before.length - common
    if (after.slice(0, common).every((line, index) => line === before[start + index])) {
      return after.slice(common)
    }
  }
  return after
}

/** Shows lines until the command is stopped. */
export async function followLogs(
  { client, node }: { client: Client; node: Node },
  input: Input,
  context: Context,
): Promise<undefined> {
  const { streams, json, clock, signal } = context
  const paint = painter()
  let before: readonly string[] = []
  for (;;) {
    const wanted = { kind: 'logs', arguments: logArguments(input) } as const
    const { command } = await order(client, node, wanted, limitsOf(input), context)
    const after = (command.output ?? '').split('\n').filter((line) => line !== '')
    const fresh = newLines(before, after)
    before = after.length > 0 ? after : before
    for (const line of fresh) {
      await streams.out(`${json ? JSON.stringify({ line }) : logText(line, paint)}\n`)
    }
    await clock.sleep(pause, signal)
  }
}
