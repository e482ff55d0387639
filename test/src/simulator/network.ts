import type { World } from './world.ts'

// The network as the fleet's protocols see it. A session carries messages in order and may break at any
// moment, with everything that is under way; whoever needs more keeps its messages and sends them again
// in the next session, so they come twice. A machine may be cut off from the coordinator or from
// another machine for a while.

/** One end of a session. */
export interface End<In> {
  receive(message: In): void
  /** The session is over; told after a while, as a broken line is. */
  closed(): void
}

export class Session<ToCoordinator, ToNode> {
  isOpen = true
  readonly #world: World
  readonly #coordinator: End<ToCoordinator>
  readonly #node: End<ToNode>
  /** When the last message of each direction arrives: nothing overtakes. */
  #arrivals = { up: 0, down: 0 }

  constructor(world: World, coordinator: End<ToCoordinator>, node: End<ToNode>) {
    this.#world = world
    this.#coordinator = coordinator
    this.#node = node
  }

  up(message: ToCoordinator): void {
    this.#send('up', () => this.#coordinator.receive(message))
  }

  down(message: ToNode): void {
    this.#send('down', () => this.#node.receive(message))
  }

  /** Both ends learn of it, each in its time; what is under way is lost. */
  break(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.#world.after(this.#world.between(100, 60_000), () => this.#coordinator.closed())
    this.#world.after(this.#world.between(100, 60_000), () => this.#node.closed())
  }

  #send(direction: 'up' | 'down', deliver: () => void): void {
    if (!this.isOpen) return
    if (this.#world.fault(0.01)) {
      this.break()
      return
    }
    const earliest = this.#world.now + this.#delay()
    const at = Math.max(this.#arrivals[direction], earliest)
    this.#arrivals[direction] = at
    this.#world.after(at - this.#world.now, () => {
      if (this.isOpen) deliver()
    })
  }

  #delay(): number {
    return this.#world.fault(0.05) ? this.#world.between(1_000, 30_000) : this.#world.between(1, 80)
  }
}

/** Who cannot reach whom, until when. */
export class Partitions {
  readonly #world: World
  readonly #until = new Map<string, number>()

  constructor(world: World) {
    this.#world = world
  }

  cut(one: string, other: string, milliseconds: number): void {
    this.#until.set(keyOf(one, other), this.#world.now + milliseconds)
  }

  heal(): void {
    this.#until.clear()
  }

  joins(one: string, other: string): boolean {
    return (this.#until.get(keyOf(one, other)) ?? 0) <= this.#world.now
  }
}

function keyOf(one: string, other: string): string {
  return [one, other].sort().join(' ')
}
