import { keyRoutes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { recordAlone } from './audit.ts'
import { makeBackup } from './backup.ts'
import type { CeremonyDeps } from './ceremonies.ts'
import { coordinatorFault } from './faults.ts'
import { mount, mountStream, type ServerDeps } from './mount.ts'
import { sealByCommand } from './recovery.ts'
import { streamed } from './streamed.ts'
import type { Caller } from './users.ts'
import { addWay, dropWay, listWays, proveWay, rotateDataKey } from './way-changes.ts'
import { newId } from './ways.ts'

export function mountKeys(app: OpenAPIHono, deps: ServerDeps, ceremonies: CeremonyDeps): void {
  const { coordinator, clock } = deps
  const { store } = coordinator
  const actor = (caller: Caller | undefined) => `user:${caller?.user}`
  mount(app, deps, keyRoutes.list, async () => ({ ways: await listWays(coordinator) }))
  mount(
    app,
    deps,
    keyRoutes.add,
    async ({ body, caller }) => await addWay(coordinator, body.kind, body.config, actor(caller)),
  )
  mount(
    app,
    deps,
    keyRoutes.prove,
    async ({ params, caller }) => await proveWay(coordinator, params.id ?? '', actor(caller)),
  )
  mount(app, deps, keyRoutes.remove, async ({ params, caller }) => {
    await dropWay(coordinator, params.id ?? '', actor(caller))
    return { done: true }
  })
  mount(app, deps, keyRoutes.rotate, async ({ caller }) => ({
    generation: await rotateDataKey(coordinator, ceremonies, actor(caller)),
  }))
  mount(app, deps, keyRoutes.seal, async ({ caller }) => {
    const by = { actor: actor(caller), subject: deps.instance ?? 'coordinator' }
    await sealByCommand(coordinator, ceremonies, by)
    return { done: true }
  })
  // Each holds a connection to the store for as long as somebody fetches it.
  const backups = new OneAtATime()
  mountStream(app, deps, keyRoutes.backup, async ({ caller }) => {
    const by = actor(caller)
    const parts = async function* () {
      const bundle = newId()
      // Before the first byte: who goes away before the last one has had a backup all the same.
      const event = { actor: by, action: 'backup.make', subject: bundle }
      await recordAlone(store, clock, { ...event, outcome: 'done' })
      yield* makeBackup({ store, identity: coordinator.identity, clock, bundle })
    }
    return await streamed(backups.only(parts()), clock, deps.report)
  })
}

/** Streams of which only one goes on; the next may begin when it has ended, however it ends. */
class OneAtATime {
  #busy = false

  /** @throws Fault coordinator.backup_busy, at the first part */
  async *only(parts: AsyncIterable<string>): AsyncGenerator<string> {
    if (this.#busy)
      throw coordinatorFault('coordinator.backup_busy', 'another backup is being fetched', {
        hint: 'again in a minute: holdfast coordinator backup --out FILE',
      })
    this.#busy = true
    try {
      yield* parts
    } finally {
      this.#busy = false
    }
  }
}
