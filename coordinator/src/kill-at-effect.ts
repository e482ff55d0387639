import { subscribe } from 'node:diagnostics_channel'
import type { Effect } from '@holdfast/base'

/**
 * Ends this process with SIGKILL at its N-th effect: a durable write, or the moment just before or after
 * a commit.
 * @param begins the first effect that counts
 */
export function killAt(at: number, begins: (effect: Effect) => boolean = () => true): void {
  let effects = 0
  subscribe('holdfast:effect', (message) => {
    // Only `announce` publishes on this channel.
    if (effects === 0 && !begins(message as Effect)) return
    effects += 1
    if (effects === at) process.kill(process.pid, 'SIGKILL')
  })
}
