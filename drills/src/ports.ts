import { freePort } from '@holdfast/base'

/** A free port that is none of these, and one of them from now on: what will listen there need not yet. */
export async function portBeside(
  given: Set<number>,
  draw: () => Promise<number> = freePort,
): Promise<number> {
  for (;;) {
    const port = await draw()
    if (given.has(port)) continue
    given.add(port)
    return port
  }
}
