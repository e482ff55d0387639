import { join } from 'node:path'
import { readIfPresent, writeDurable } from '@holdfast/base'

// The highest generation that this host has seen, apart from the store: whoever puts an old store
// back must also have this file, every node's own witness, and the holders' consent.

const file = 'witness'

export interface Witnessed {
  cluster: string
  generation: number
}

/** What this host has witnessed; a damaged file counts as none, the nodes' witness remains. */
export async function readWitness(directory: string): Promise<Witnessed | undefined> {
  const text = (await readIfPresent(join(directory, file), 200))?.toString('utf8')
  const [, cluster, generation] = /^([\w-]{22}) (\d{1,15})\n$/.exec(text ?? '') ?? []
  if (cluster === undefined) return undefined
  return { cluster, generation: Number(generation) }
}

/** Records a generation unless a later one of the same cluster is recorded. */
export async function writeWitness(directory: string, seen: Witnessed): Promise<void> {
  const before = await readWitness(directory)
  if (before?.cluster === seen.cluster && before.generation >= seen.generation) return
  await writeDurable(join(directory, file), `${seen.cluster} ${seen.generation}\n`)
}
