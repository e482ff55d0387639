import { join } from 'node:path'
import { readIfPresent, writeDurable } from '@holdfast/base'

// The highest generation that this host has seen, apart from the store: whoever puts an old store
// back must also have this file, every node's own witness, and the holders' consent. Where there is a
// TPM, a counter in it that only goes up witnesses the file itself, so that an old copy of the whole
// disk is noticed, too.
//
// The file says `CLUSTER GENERATION [COUNTER|fresh]`. It is written with the counter's next value and
// the counter is advanced afterwards, so a crash leaves it one ahead at most; `fresh` says that a
// counter is about to be taken into use.

const file = 'witness'

export interface Witnessed {
  cluster: string
  generation: number
}

/** A counter that outlives the disk and never goes back. */
export interface GenerationCounter {
  /** Its value; undefined when there is none for this cluster. */
  read(cluster: string): Promise<number | undefined>
  /** Makes it if there is none, and advances it by one. Returns its value. */
  advance(cluster: string): Promise<number>
}

export class HostWitness {
  readonly #directory: string
  readonly #counter: GenerationCounter | undefined
  /** File and counter change together or not at all: one at a time. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(directory: string, counter?: GenerationCounter) {
    this.#directory = directory
    this.#counter = counter
  }

  /**
   * What this host has witnessed. A damaged file counts as none.
   * @returns `behind`: the counter has seen more than this file, so the disk is an old one
   */
  async look(cluster: string): Promise<{ generation: number; behind: boolean }> {
    return await this.#alone(() => this.#look(cluster))
  }

  /** Records a generation unless a later one of the same cluster is recorded. */
  async note(seen: Witnessed): Promise<void> {
    await this.#alone(() => this.#note(seen))
  }

  async #alone<T>(task: () => Promise<T>): Promise<T> {
    const next = this.#last.then(task)
    this.#last = next.catch(() => undefined)
    return await next
  }

  async #look(cluster: string): Promise<{ generation: number; behind: boolean }> {
    const own = await this.#own(cluster)
    const generation = own?.generation ?? 0
    if (this.#counter === undefined) return { generation, behind: false }
    const value = await this.#counter.read(cluster)
    if (own?.counter === 'fresh') return { generation, behind: false }
    if (own?.counter === undefined) return { generation, behind: value !== undefined }
    if (value === own.counter - 1) await this.#counter.advance(cluster)
    return { generation, behind: value !== own.counter && value !== own.counter - 1 }
  }

  async #note({ cluster, generation }: Witnessed): Promise<void> {
    const own = await this.#own(cluster)
    const counter = this.#counter
    const counted = counter === undefined || typeof own?.counter === 'number'
    if (own !== undefined && own.generation >= generation && counted) return
    const highest = Math.max(generation, own?.generation ?? 0)
    if (counter === undefined) return await this.#write(cluster, highest)
    const value = await counter.read(cluster)
    if (value !== undefined) {
      await this.#write(cluster, highest, value + 1)
      await counter.advance(cluster)
      return
    }
    // Where a new counter begins is the TPM's to say.
    await this.#write(cluster, highest, 'fresh')
    await this.#write(cluster, highest, await counter.advance(cluster))
  }

  async #own(
    cluster: string,
  ): Promise<{ generation: number; counter: number | 'fresh' | undefined } | undefined> {
    const text = (await readIfPresent(join(this.#directory, file), 200))?.toString('utf8')
    const [, whose, generation, counter] =
      /^([\w-]{22}) (\d{1,15})(?: (\d{1,15}|fresh))?\n$/.exec(text ?? '') ?? []
    if (whose !== cluster) return undefined
    const known = counter === undefined || counter === 'fresh' ? counter : Number(counter)
    return { generation: Number(generation), counter: known }
  }

  async #write(cluster: string, generation: number, counter?: number | 'fresh'): Promise<void> {
    const text = [cluster, generation, ...(counter === undefined ? [] : [counter])].join(' ')
    await writeDurable(join(this.#directory, file), `${text}\n`)
  }
}

/** What a directory says that has never been served: a counter it may find is taken over. */
export async function writeFirstWitness(directory: string, seen: Witnessed): Promise<void> {
  await writeDurable(join(directory, file), `${seen.cluster} ${seen.generation} fresh\n`)
}
