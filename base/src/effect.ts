import { channel } from 'node:diagnostics_channel'

/** One thing done to the world: a program that ended, or a write that is durable. */
export interface Effect {
  kind: 'run' | 'write' | 'append' | 'remove' | 'rename'
  /** The program with its arguments, or the path. Never a secret. */
  what: string
}

const effects = channel('holdfast:effect')

/**
 * Announces an effect right after it happened, on the diagnostics channel `holdfast:effect`.
 * The crash tests subscribe and kill the process at each of them in turn.
 */
export function announce(kind: Effect['kind'], what: string): void {
  if (effects.hasSubscribers) effects.publish({ kind, what } satisfies Effect)
}
