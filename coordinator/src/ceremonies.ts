import { randomBytes } from 'node:crypto'
import { canonicalJson, type Fault, isFault, parseJsonObject, type Secret } from '@holdfast/base'
import type { CeremonyKind } from '@holdfast/protocol'
import type { Insertable, Selectable } from 'kysely'
import { record } from './audit.ts'
import { expire } from './ceremony-end.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import {
  attemptsOf,
  type Ceremony,
  type CeremonyDeps,
  readCeremony,
  rejectedOf,
  withAnswers,
} from './ceremony-record.ts'
import { readStatement, type StatementFacts, statementText } from './statement.ts'
import { isDuplicate } from './store.ts'
import type { AnswerTable, CeremonyTable } from './tables.ts'
import { newId } from './ways.ts'

export {
  closeCeremony,
  expire,
  handover,
  keptShares,
  requireMet,
  stateOf,
} from './ceremony-end.ts'
export {
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  listCeremonies,
  readCeremony,
  stateDigest,
} from './ceremony-record.ts'

// A ceremony: several people, one thing. Its record is in the store, so progress survives a restart
// and any instance takes the next answer. An answer is accepted only when it is signed by a listed
// holder, made for this very ceremony, and (for a recovery) its share is right by itself; anything
// else is refused with its own code and changes nothing that others have done.

export interface NewCeremony {
  kind: CeremonyKind
  digest: string
  generation: number
  threshold: number
  holders: readonly { name: string; key: string }[]
  detail?: Record<string, unknown>
}

/** What to do with an answer that has been authenticated. */
export interface AnswerHandler {
  /** True when the last line must be a share. */
  needsShare: boolean
  /** Checks one share alone. @throws Fault ceremony.share_wrong */
  check(ceremony: Ceremony, holder: string, contentKey: Secret): Promise<void>
  /** Encrypts a share for keeping; only the coordinator's identity key opens it. */
  keep(contentKey: Secret): Promise<string>
}

const lifetime = 24 * 60 * 60 * 1000
const mostRejected = 20
/** Wrong answers that one holder's key may sign in one ceremony; more are not even looked at. */
const mostAttempts = 20

/** Begins a ceremony, or returns the open one for the same thing: two people may start at once. */
export async function openCeremony(
  deps: CeremonyDeps,
  wanted: NewCeremony,
  actor: string,
): Promise<Ceremony> {
  const { store, clock } = deps
  await expire(deps)
  return await store.write(async (work) => {
    const same = await work
      .selectFrom('ceremonies')
      .selectAll()
      .where('kind', '=', wanted.kind)
      .where('digest', '=', wanted.digest)
      .where('generation', '=', wanted.generation)
      .where('state', 'in', ['open', 'met'])
      .executeTakeFirst()
    if (same !== undefined) return await withAnswers(work, same)
    const now = clock.now()
    const row: Insertable<CeremonyTable> = {
      id: newId(),
      kind: wanted.kind,
      state: 'open',
      digest: wanted.digest,
      nonce: randomBytes(16).toString('base64url'),
      generation: wanted.generation,
      threshold: wanted.threshold,
      detail: canonicalJson({ ...wanted.detail, holders: wanted.holders, rejected: [] }),
      created: now,
      expires: now + lifetime,
    }
    await work.insertInto('ceremonies').values(row).execute()
    const data = { kind: wanted.kind, digest: wanted.digest, threshold: wanted.threshold }
    await record(work, clock, {
      actor,
      action: 'ceremony.open',
      subject: row.id,
      outcome: 'done',
      data,
    })
    return await withAnswers(work, row as Selectable<CeremonyTable>) // every column was just given
  })
}

/** The facts a holder's statement must carry. @throws Fault ceremony.holder_unknown */
function factsFor(deps: CeremonyDeps, ceremony: Ceremony, holder: string): StatementFacts {
  if (!ceremony.holders.some(({ name }) => name === holder)) {
    throw ceremonyFault('ceremony.holder_unknown', `${holder} takes no part in this ceremony`, {
      hint: `holders: ${ceremony.holders.map(({ name }) => name).join(', ')}`,
    })
  }
  const { id, kind, nonce, digest, generation, expires } = ceremony
  return { cluster: deps.cluster(), ceremony: id, kind, nonce, digest, generation, holder, expires }
}

/** What a holder signs in this ceremony. @throws Fault ceremony.holder_unknown */
export function statementFor(deps: CeremonyDeps, ceremony: Ceremony, holder: string): string {
  return statementText(factsFor(deps, ceremony, holder))
}

/**
 * Takes one holder's answer. Returns the ceremony with it; `met` when it was the last that was needed.
 * @throws Fault ceremony.* with a code for each way in which an answer can be wrong
 */
export async function takeAnswer(
  deps: CeremonyDeps,
  id: string,
  answer: { holder: string; statement: Buffer; signature: Buffer },
  handler: AnswerHandler,
): Promise<Ceremony> {
  await expire(deps)
  const ceremony = await readCeremony(deps, id)
  requireOpen(ceremony)
  const facts = factsFor(deps, ceremony, answer.holder)
  if ((ceremony.attempts[answer.holder] ?? 0) >= mostAttempts)
    throw ceremonyFault(
      'ceremony.too_many_attempts',
      `${answer.holder} has handed in ${mostAttempts} wrong answers`,
      { hint: 'cancel this ceremony and begin another one, or go on with the other holders' },
    )
  const key = ceremony.holders.find(({ name }) => name === answer.holder)?.key ?? ''
  const { contentKey } = readStatement(
    answer.statement,
    answer.signature,
    key,
    facts,
    deps.clock.now(),
  )
  using share = contentKey
  try {
    const sealed = await keepShare(ceremony, answer.holder, share, handler)
    return await accept(deps, ceremony, answer.holder, sealed)
  } catch (error) {
    // Only what a listed holder signed comes this far, so the log cannot be flooded by strangers.
    if (isFault(error)) await reject(deps, ceremony, answer.holder, error)
    throw error
  }
}

async function keepShare(
  ceremony: Ceremony,
  holder: string,
  share: Secret | undefined,
  handler: AnswerHandler,
): Promise<string> {
  if (!handler.needsShare) return ''
  if (share === undefined)
    throw ceremonyFault(
      'ceremony.share_needed',
      'this ceremony needs the share, not only an approval',
    )
  await handler.check(ceremony, holder, share)
  return await handler.keep(share)
}

async function accept(
  deps: CeremonyDeps,
  ceremony: Ceremony,
  holder: string,
  sealed: string,
): Promise<Ceremony> {
  const { store, clock } = deps
  return await store
    .write(async (work) => {
      const row = await work
        .selectFrom('ceremonies')
        .selectAll()
        .where('id', '=', ceremony.id)
        .executeTakeFirstOrThrow()
      const current = await withAnswers(work, row)
      requireOpen(current)
      if (current.answered.some((each) => each.holder === holder)) throw duplicate(holder)
      const entry: Insertable<AnswerTable> = {
        ceremony: ceremony.id,
        holder,
        at: clock.now(),
        code: 'accepted',
        sealed,
      }
      await work.insertInto('answers').values(entry).execute()
      const answered = current.answered.length + 1
      const met = answered >= current.threshold
      if (met)
        await work
          .updateTable('ceremonies')
          .set({ state: 'met' })
          .where('id', '=', ceremony.id)
          .execute()
      const data = { kind: ceremony.kind, answered, threshold: current.threshold }
      await record(work, clock, {
        actor: `holder:${holder}`,
        action: 'ceremony.answer',
        subject: ceremony.id,
        outcome: 'done',
        data,
      })
      return await withAnswers(work, { ...row, state: met ? 'met' : row.state })
    })
    .catch((error: unknown) => {
      throw isDuplicate(error) ? duplicate(holder) : error
    })
}

async function reject(
  deps: CeremonyDeps,
  ceremony: Ceremony,
  holder: string,
  fault: Fault,
): Promise<void> {
  const { store, clock } = deps
  const entry = { holder, code: fault.code, at: clock.now() }
  await store.write(async (work) => {
    const row = await work
      .selectFrom('ceremonies')
      .select('detail')
      .where('id', '=', ceremony.id)
      .executeTakeFirstOrThrow()
    const detail = parseJsonObject(row.detail, 'the ceremony')
    const rejected = [...rejectedOf(detail), entry].slice(-mostRejected)
    const attempts = attemptsOf(detail)
    attempts[holder] = (attempts[holder] ?? 0) + 1
    await work
      .updateTable('ceremonies')
      .set({ detail: canonicalJson({ ...detail, rejected, attempts }) })
      .where('id', '=', ceremony.id)
      .execute()
    await record(work, clock, {
      actor: `holder:${holder}`,
      action: 'ceremony.answer',
      subject: ceremony.id,
      outcome: 'refused',
      data: { code: fault.code },
    })
  })
}

function requireOpen(ceremony: Ceremony): void {
  if (ceremony.state === 'open') return
  if (ceremony.state === 'expired')
    throw ceremonyFault('ceremony.expired', 'the ceremony has expired', {
      hint: 'begin a new one: holdfast coordinator recover',
    })
  throw ceremonyFault('ceremony.not_open', `the ceremony is ${ceremony.state}`)
}

function duplicate(holder: string): Error {
  return ceremonyFault('ceremony.answer_duplicate', `${holder} has already answered`)
}
