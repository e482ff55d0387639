// Virtual time, chance and the record of what happened. Every choice comes from the seed, so a seed that
// fails fails again; nothing here looks at a clock or waits.

/** A broken rule, with the seed that breaks it and what happened until then. */
export class SimulationFailure extends Error {
  override readonly name = 'SimulationFailure'
  readonly seed: number
  readonly rule: string
  readonly trace: readonly string[]

  constructor(seed: number, rule: string, trace: readonly string[]) {
    super(
      `seed ${seed}: ${rule}\n${trace.slice(-30).join('\n')}\n` +
        `all of it: node test/src/simulator/replay.ts ${seed}`,
    )
    this.seed = seed
    this.rule = rule
    this.trace = trace
  }
}

/** Thrown where the power of a machine goes: what it was doing ends there. */
export class PowerCut extends Error {}

interface Happening {
  at: number
  sequence: number
  run: () => void
}

export class World {
  readonly seed: number
  /** Milliseconds since the beginning. */
  now = 0
  /** No more faults. */
  calm = false
  powerCuts = 0
  readonly #next: () => number
  readonly #heap: Happening[] = []
  readonly #notes: { at: number; text: string }[] = []
  #sequence = 0

  constructor(seed: number) {
    this.seed = seed
    this.#next = seededRandom(seed)
  }

  /** In [0, 1). */
  random(): number {
    return this.#next()
  }

  chance(probability: number): boolean {
    return this.#next() < probability
  }

  /** A fault that does not happen once the world is calm. */
  fault(probability: number): boolean {
    return this.#next() < probability && !this.calm
  }

  between(least: number, most: number): number {
    return Math.floor(least + this.#next() * (most - least + 1))
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.#next() * list.length)]
  }

  note(text: string): void {
    this.#notes.push({ at: this.now, text })
  }

  /** What has happened, with the second in which it did. */
  get trace(): string[] {
    return this.#notes.map(({ at, text }) => `${(at / 1000).toFixed(1).padStart(9)} ${text}`)
  }

  fail(rule: string): never {
    this.note(`BROKEN: ${rule}`)
    throw new SimulationFailure(this.seed, rule, this.trace)
  }

  after(delay: number, run: () => void): void {
    this.#sequence += 1
    push(this.#heap, { at: this.now + delay, sequence: this.#sequence, run })
  }

  /** Lets everything happen that is due until then. */
  runUntil(end: number): void {
    for (let next = this.#heap[0]; next !== undefined && next.at <= end; next = this.#heap[0]) {
      pop(this.#heap)
      this.now = next.at
      next.run()
    }
    this.now = end
  }
}

/** A machine whose power can go; what it has planned goes with it. */
export class Machine {
  readonly world: World
  readonly name: string
  on = true
  /** Broken or stolen: it never comes back. */
  gone = false
  #life = 0

  constructor(world: World, name: string) {
    this.world = world
    this.name = name
  }

  /** Runs later, in this life of the machine or never. */
  after(delay: number, run: () => void): void {
    const life = this.#life
    this.world.after(delay, () => {
      if (this.on && life === this.#life) this.attempt(run)
    })
  }

  /** Runs, and goes dark where the power is cut. */
  attempt(run: () => void): void {
    try {
      run()
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error
      this.goDark()
    }
  }

  /** The power may go here; callers have just made something durable, or are about to. */
  mayDie(probability = 0.01): void {
    if (this.world.fault(probability)) throw new PowerCut()
  }

  goDark(forGood = false): void {
    if (!this.on && !forGood) return
    this.world.powerCuts += 1
    this.world.note(`${this.name} loses its power${forGood ? ' for good' : ''}`)
    this.#life += 1
    this.on = false
    this.gone ||= forGood
    this.onDark()
    const pause = this.world.calm ? 1_000 : this.world.between(1_000, 1_200_000)
    if (!forGood) this.world.after(pause, () => this.wake())
  }

  wake(): void {
    if (this.on || this.gone) return
    this.on = true
    this.#life += 1
    this.attempt(() => this.onWake())
  }

  protected onDark(): void {}
  protected onWake(): void {}
}

/** Numbers in [0, 1) from a seed: mulberry32, a public-domain generator. */
function seededRandom(seed: number): () => number {
  let a = (seed * 2_654_435_761) >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function isBefore(one: Happening, other: Happening): boolean {
  return one.at !== other.at ? one.at < other.at : one.sequence < other.sequence
}

/** A binary heap, the earliest first. */
function push(heap: Happening[], item: Happening): void {
  let at = heap.length
  heap.push(item)
  while (at > 0) {
    const above = (at - 1) >> 1
    const parent = heap[above]
    if (parent === undefined || !isBefore(item, parent)) break
    heap[at] = parent
    at = above
  }
  heap[at] = item
}

function pop(heap: Happening[]): void {
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return
  let at = 0
  for (;;) {
    const [left, right] = [heap[2 * at + 1], heap[2 * at + 2]]
    const useRight = left !== undefined && right !== undefined && isBefore(right, left)
    const child = useRight ? right : left
    if (child === undefined || !isBefore(child, last)) break
    heap[at] = child
    at = 2 * at + (useRight ? 2 : 1)
  }
  heap[at] = last
}
