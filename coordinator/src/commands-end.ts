import type { Clock } from '@holdfast/base'
import { record } from './audit.ts'
import type { Store, Work } from './store.ts'

// How commands end that nobody answers, and how long those that have ended are kept.

/** What is given up when its time is over. */
const givenUp = ['confirm', 'preparing', 'waiting', 'sent', 'running'] as const
/** A command for the whole fleet may run out for thousands at once; others write between the parts. */
const expiredAtOnce = 100

/** Gives up what got no result in time. Returns how many. */
export async function expireCommands(store: Store, clock: Clock): Promise<number> {
  const now = clock.now()
  const due = await store.read
    .selectFrom('commands')
    .select(['id', 'node', 'command', 'by'])
    .where('state', 'in', givenUp)
    .where('expires', '<=', now)
    .orderBy('expires')
    .orderBy('issue')
    .execute()
  let expired = 0
  for (let start = 0; start < due.length; start += expiredAtOnce) {
    const part = due.slice(start, start + expiredAtOnce)
    expired += await store.write(async (work) => {
      let count = 0
      for (const { id, node, command, by } of part) {
        const { numUpdatedRows } = await work
          .updateTable('commands')
          .set({ state: 'expired', finished: now })
          .where('id', '=', id)
          .where('state', 'in', givenUp)
          .executeTakeFirst()
        if (numUpdatedRows === 0n) continue // a result has come meanwhile
        count += 1
        await record(work, clock, {
          actor: 'coordinator',
          action: 'command.expire',
          subject: node,
          outcome: 'failed',
          data: { id, command, by },
        })
      }
      return count
    })
  }
  return expired
}

/** Forgets finished commands of long ago; the audit log keeps that they were. */
export async function pruneCommands(work: Work, before: number): Promise<void> {
  await work.deleteFrom('commands').where('finished', '<', before).execute()
}
