import { sign } from 'node:crypto'
import { fromBase64url } from '@holdfast/base'
import { ceremonyRoutes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import {
  type AnswerHandler,
  type Ceremony,
  type CeremonyDeps,
  listCeremonies,
  readCeremony,
  statementFor,
  takeAnswer,
} from './ceremonies.ts'
import { cancelCeremony } from './ceremony-end.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import type { Coordinator } from './coordinator.ts'
import { openDismissal } from './dismissal.ts'
import { finish } from './finish.ts'
import { openStatement } from './holder-file.ts'
import { challengeHolder, preparedWay, proveHolder } from './holders.ts'
import { openApproval } from './manifests.ts'
import { authorise, mount, type ServerDeps } from './mount.ts'
import { holdersWay, openRecovery, shareHandler, wrappedShare } from './recovery.ts'
import { openRollback } from './rollback.ts'

export function mountCeremonies(
  app: OpenAPIHono,
  deps: ServerDeps,
  ceremonies: CeremonyDeps,
): void {
  const { coordinator, clock } = deps
  mount(app, deps, ceremonyRoutes.list, async () => ({
    ceremonies: (await listCeremonies(ceremonies)).map(shown),
  }))
  mount(app, deps, ceremonyRoutes.get, async ({ params }) =>
    shown(await readCeremony(ceremonies, params.id ?? '')),
  )
  mount(app, deps, ceremonyRoutes.open, async ({ body, caller }) => {
    const actor = caller === undefined ? 'anybody' : `user:${caller.user}`
    if (body.kind === 'recovery') {
      coordinator.require('recovery')
      return shown(await openRecovery(coordinator, ceremonies, actor))
    }
    if (body.kind === 'rollback') return shown(await openRollback(coordinator, ceremonies, actor))
    if (body.kind === 'dismissal') return shown(await openDismissal(coordinator, ceremonies, actor))
    if (body.kind !== 'manifest')
      throw ceremonyFault('ceremony.unknown', `a ceremony of kind ${body.kind} begins by itself`)
    authorise(['admin'], caller)
    return shown(await openApproval(coordinator, ceremonies, body.manifest, actor))
  })
  mount(app, deps, ceremonyRoutes.request, async ({ params }) => {
    const ceremony = await readCeremony(ceremonies, params.id ?? '')
    return await requestFor(coordinator, ceremonies, ceremony, params.holder ?? '')
  })
  mount(app, deps, ceremonyRoutes.answer, async ({ params, body }) => {
    const before = await readCeremony(ceremonies, params.id ?? '')
    const handler = await handlerFor(coordinator, before)
    const answer = {
      holder: body.holder,
      statement: await openStatement(fromBase64url(body.statement), coordinator.identity.key),
      signature: fromBase64url(body.signature),
    }
    const after = await takeAnswer(ceremonies, before.id, answer, handler)
    if (after.state !== 'met') return shown(after)
    await finish(coordinator, ceremonies, after)
    // A dismissal takes its own record with it; the audit log keeps it.
    if (after.kind === 'dismissal') return shown({ ...after, state: 'done' })
    return shown(await readCeremony(ceremonies, after.id))
  })
  mount(app, deps, ceremonyRoutes.cancel, async ({ params, caller }) => {
    const { id } = await readCeremony(ceremonies, params.id ?? '')
    await cancelCeremony(ceremonies, id, `user:${caller?.user}`)
    return { done: true }
  })
  mount(app, deps, ceremonyRoutes.share, async ({ params }) => {
    const holder = params.name ?? ''
    const sealed = await holdersWay(coordinator, 'active')
    const generation = coordinator.header?.generation ?? 0
    return { holder, generation, sealed, ...wrappedShare(sealed, holder) }
  })
  mount(
    app,
    deps,
    ceremonyRoutes.challenge,
    async ({ params }) => await challengeHolder(coordinator, clock, params.name ?? ''),
  )
  mount(app, deps, ceremonyRoutes.prove, async ({ params, body }) => {
    const answer = {
      statement: await openStatement(fromBase64url(body.statement), coordinator.identity.key),
      signature: fromBase64url(body.signature),
    }
    return await proveHolder(coordinator, clock, params.name ?? '', answer)
  })
}

async function handlerFor(coordinator: Coordinator, ceremony: Ceremony): Promise<AnswerHandler> {
  const { identity } = coordinator
  if (ceremony.kind === 'recovery' || ceremony.kind === 'rollback')
    return shareHandler(identity, await holdersWay(coordinator, 'active'))
  if (ceremony.kind === 'holders') return shareHandler(identity, await preparedWay(coordinator))
  return { needsShare: false, check: async () => undefined, keep: async () => '' }
}

async function requestFor(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
  holder: string,
) {
  const statement = statementFor(deps, ceremony, holder)
  const { identity } = coordinator
  const sealed =
    ceremony.kind === 'holders'
      ? await preparedWay(coordinator)
      : await holdersWay(coordinator, 'active')
  const { wrapped, kid, algorithm } = wrappedShare(sealed, holder)
  return {
    holder,
    kid,
    algorithm,
    wrapped,
    sealed,
    statement,
    signature: sign('sha256', Buffer.from(statement, 'utf8'), identity.key).toString('base64url'),
    key: identity.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }
}

/** A ceremony as the API shows it: holders by name. */
export function shown(ceremony: Ceremony) {
  const { manifest: _body, ...detail } = ceremony.detail
  const { attempts: _counted, ...rest } = ceremony
  return { ...rest, holders: ceremony.holders.map(({ name }) => name), detail }
}
