import { createHash, createPublicKey, randomBytes } from 'node:crypto'
import { type Clock, canonicalJson, isFault, parseJsonObject, Secret } from '@holdfast/base'
import { decryptJwe, parseJwe, thumbprint } from '@holdfast/crypto'
import { createPins, holderRequests, seal } from '@holdfast/seal'
import { record } from './audit.ts'
import {
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  openCeremony,
  requireMet,
} from './ceremonies.ts'
import { closeCeremony, supersede } from './ceremony-end.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import type { Coordinator } from './coordinator.ts'
import type { Header } from './header.ts'
import { holdersWay } from './recovery.ts'
import { readStatement, type StatementFacts, statementText } from './statement.ts'
import type { Store } from './store.ts'

// Holders: who they are, when each last proved the key, and how their circle changes. A proof never
// touches a real share: the holder unwraps a value made for the purpose, so it can be done at any
// time, sealed or not.

const proofLifetime = 24 * 60 * 60 * 1000
/** A proof older than this counts as none. */
export const proofAge = 90 * 24 * 60 * 60 * 1000

export interface HolderState {
  name: string
  kid: string
  provenAt?: number
}

/** The holders of the current header with their last proofs. */
export async function holderStates(store: Store, header: Header): Promise<HolderState[]> {
  const rows = await store.read.selectFrom('holders').select(['name', 'kid', 'proven_at']).execute()
  return (header.holders?.list ?? []).map(({ name, kid }) => {
    const row = rows.find((each) => each.name === name && each.kid === kid)
    return { name, kid, ...(row?.proven_at == null ? {} : { provenAt: row.proven_at }) }
  })
}

/** How many proved their key lately, and whether that is enough to recover. */
export function holderMargin(
  states: readonly HolderState[],
  threshold: number,
  now: number,
): { proven: number; alarm?: string } {
  const proven = states.filter(
    ({ provenAt }) => provenAt !== undefined && now - provenAt <= proofAge,
  ).length
  if (proven >= threshold) return { proven }
  return {
    proven,
    alarm: `only ${proven} of ${states.length} holders proved their key in 90 days, and ${threshold} are needed to recover`,
  }
}

export interface Challenge {
  statement: string
  /** What the holder unwraps: for RSA the argument of openssl or an HSM. */
  wrapped: string
  sealed: string
  kid: string
}

/**
 * A value wrapped for a holder's key, and the statement to sign. One that is still open is given
 * again: anybody may ask, and nobody may take a challenge away from a holder who is working on it.
 */
export async function challengeHolder(
  coordinator: Coordinator,
  clock: Clock,
  name: string,
): Promise<Challenge> {
  const { store, header } = coordinator
  const holder = header?.holders?.list.find((each) => each.name === name)
  if (header === undefined || holder === undefined) throw unknownHolder(name)
  const open = await openChallenge(coordinator, clock, name)
  if (open !== undefined) return { ...open, kid: holder.kid }
  using value = Secret.random(32)
  const sealed = await seal(
    createPins(),
    { kind: 'pin', pin: 'person', config: { name, key: holder.key } },
    value,
    { use: { purpose: 'proof', of: name } },
  )
  const facts: StatementFacts = {
    cluster: header.cluster,
    ceremony: `proof-${name}`,
    kind: 'proof',
    nonce: randomBytes(16).toString('base64url'),
    digest: createHash('sha256').update(sealed).digest('base64url'),
    generation: header.generation,
    holder: name,
    expires: clock.now() + proofLifetime,
  }
  const { ceremony: id, nonce, digest, generation, expires } = facts
  const row = {
    id,
    kind: 'proof',
    state: 'proof',
    digest,
    nonce,
    generation,
    threshold: 1,
    created: clock.now(),
    expires,
  }
  await store.write(async (work) => {
    await work.deleteFrom('ceremonies').where('id', '=', id).execute()
    await work
      .insertInto('ceremonies')
      .values({ ...row, detail: canonicalJson({ sealed }) })
      .execute()
  })
  const [request] = holderRequests(sealed)
  return {
    statement: statementText(facts),
    wrapped: request?.wrapped.toString('base64url') ?? '',
    sealed,
    kid: holder.kid,
  }
}

async function openChallenge(
  { store, header }: Coordinator,
  clock: Clock,
  name: string,
): Promise<Omit<Challenge, 'kid'> | undefined> {
  const row = await store.read
    .selectFrom('ceremonies')
    .selectAll()
    .where('id', '=', `proof-${name}`)
    .where('expires', '>', clock.now() + proofLifetime / 2)
    .executeTakeFirst()
  if (row === undefined || header === undefined || row.generation !== header.generation)
    return undefined
  const sealed = String(parseJsonObject(row.detail, 'the challenge').sealed)
  const { id, nonce, digest, generation, expires } = row
  const { cluster } = header
  const facts = { cluster, ceremony: id, kind: 'proof' as const, nonce, digest, generation }
  const [request] = holderRequests(sealed)
  return {
    statement: statementText({ ...facts, holder: name, expires }),
    wrapped: request?.wrapped.toString('base64url') ?? '',
    sealed,
  }
}

/** Takes a holder's proof and records when. @throws Fault ceremony.* */
export async function proveHolder(
  coordinator: Coordinator,
  clock: Clock,
  name: string,
  answer: { statement: Buffer; signature: Buffer },
): Promise<HolderState> {
  const { store, header } = coordinator
  const holder = header?.holders?.list.find((each) => each.name === name)
  if (header === undefined || holder === undefined) throw unknownHolder(name)
  const row = await store.read
    .selectFrom('ceremonies')
    .selectAll()
    .where('id', '=', `proof-${name}`)
    .executeTakeFirst()
  if (row === undefined)
    throw ceremonyFault('ceremony.unknown', `no proof has been asked of ${name}`, {
      hint: `holdfast holder prove ${name}`,
    })
  const { id, nonce, digest, generation, expires } = row
  const facts: StatementFacts = {
    cluster: header.cluster,
    ceremony: id,
    kind: 'proof',
    nonce,
    digest,
    generation,
    holder: name,
    expires,
  }
  const { contentKey } = readStatement(
    answer.statement,
    answer.signature,
    holder.key,
    facts,
    clock.now(),
  )
  using key = contentKey ?? Secret.copy('')
  checkUnwrapped(String(parseJsonObject(row.detail, 'the challenge').sealed), key, name)
  const provenAt = clock.now()
  await store.write(async (work) => {
    const fresh = { name, kid: holder.kid, key: holder.key, proven_at: provenAt }
    await work
      .insertInto('holders')
      .values(fresh)
      .onConflict((conflict) => conflict.column('name').doUpdateSet(fresh))
      .execute()
    await work.deleteFrom('ceremonies').where('id', '=', id).execute()
    await record(work, clock, {
      actor: `holder:${name}`,
      action: 'holder.proved',
      subject: name,
      outcome: 'done',
    })
  })
  return { name, kid: holder.kid, provenAt }
}

function checkUnwrapped(sealed: string, key: Secret, name: string): void {
  try {
    using _opened = decryptJwe(parseJwe(sealed), key)
  } catch (error) {
    if (!isFault(error)) throw error
    throw ceremonyFault('ceremony.share_wrong', `${name} did not unwrap the challenge`)
  }
}

/** Header entries of a manifest's holders. */
export function headerHolders(holders: {
  threshold: number
  keys: Record<string, string>
}): NonNullable<Header['holders']> {
  const list = Object.entries(holders.keys).map(([name, key]) => {
    const jwk = createPublicKey(key).export({ format: 'jwk' })
    return { name, key, kid: thumbprint({ ...jwk, kty: jwk.kty ?? '' }) }
  })
  return { threshold: holders.threshold, list: list.sort((a, b) => (a.name < b.name ? -1 : 1)) }
}

/**
 * First phase of a change of holders: the next generation is prepared with shares for the new ones,
 * and a ceremony waits until enough of them have proven theirs. The old shares stay valid until then.
 */
export async function beginHolderChange(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  holders: NonNullable<Header['holders']>,
  actor: string,
): Promise<Ceremony> {
  const candidate = await coordinator.prepareGeneration(holders)
  // An earlier change that was not finished has lost its candidate, so its ceremony ends.
  await coordinator.store.write((work) =>
    supersede(work, deps.clock, 'holders', [candidate.digest]),
  )
  return await openCeremony(
    deps,
    {
      kind: 'holders',
      digest: candidate.digest,
      generation: candidate.header.generation,
      threshold: holders.threshold,
      holders: ceremonyHolders(candidate.header),
    },
    actor,
  )
}

/** Second phase: enough new holders have proven their shares; the new generation becomes current. */
export async function finishHolderChange(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
): Promise<number> {
  if (ceremony.state !== 'met')
    throw ceremonyFault('ceremony.not_proven', 'not enough new holders have proven their shares')
  const { clock } = deps
  return await coordinator.activateGeneration(ceremony.digest, async (work) => {
    await requireMet(work, ceremony.id)
    await closeCeremony(work, ceremony.id, 'done', deps)
    await work
      .updateTable('ways')
      .set({ proven_at: clock.now() })
      .where('kind', '=', 'holders')
      .execute()
    for (const { holder, at } of ceremony.answered) {
      const listed = ceremony.holders.find(({ name }) => name === holder)
      if (listed === undefined) continue
      const kid = headerHolders({ threshold: 1, keys: { [holder]: listed.key } }).list[0]?.kid ?? ''
      const fresh = { name: holder, kid, key: listed.key, proven_at: at }
      await work
        .insertInto('holders')
        .values(fresh)
        .onConflict((conflict) => conflict.column('name').doUpdateSet(fresh))
        .execute()
    }
    const data = {
      generation: ceremony.generation,
      holders: ceremony.holders.map(({ name }) => name),
    }
    await record(work, clock, {
      actor: 'coordinator',
      action: 'holders.changed',
      subject: ceremony.id,
      outcome: 'done',
      data,
    })
  })
}

/** The sealed data key whose shares a `holders` ceremony proves. */
export async function preparedWay(coordinator: Coordinator): Promise<string> {
  return await holdersWay(coordinator, 'prepared')
}

function unknownHolder(name: string): Error {
  return ceremonyFault('ceremony.holder_unknown', `there is no holder ${name}`)
}
