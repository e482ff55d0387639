import { randomBytes } from 'node:crypto'
import { type Clock, canonicalJson, parseJsonObject, Secret } from '@holdfast/base'
import { open, type Pins, type Policy, seal, threshold } from '@holdfast/seal'
import type { Insertable, Selectable } from 'kysely'
import { DataKey } from './data-key.ts'
import { coordinatorFault } from './faults.ts'
import type { Header } from './header.ts'
import type { Work } from './store.ts'
import type { WayTable } from './tables.ts'

// Ways to the data key. Each is a sealed secret of its own over the same plaintext, so one is added,
// proven or removed without touching the others. What is sealed names the cluster, the generation
// and the digest of the header, so that none of the three can be exchanged unnoticed.

export type WayKind = 'host-key' | 'tpm2' | 'tang' | 'holders'
export type Way = Pick<
  Selectable<WayTable>,
  'id' | 'kind' | 'label' | 'sealed' | 'generation' | 'state'
>

/** What a way seals besides the key itself. */
export interface KeyContext {
  cluster: string
  generation: number
  headerDigest: string
}

/** An id of 22 base64url characters: 16 random bytes. None begins with a hyphen, as an option does. */
export function newId(): string {
  const id = randomBytes(16).toString('base64url')
  return id.startsWith('-') ? newId() : id
}

/** The plaintext that every way seals. */
function keyPlaintext(key: DataKey, context: KeyContext): Secret {
  using raw = key.copy()
  return Secret.copy(canonicalJson({ ...context, key: raw.reveal().toString('base64url') }))
}

/**
 * Reads what a way gave back.
 * @throws Fault coordinator.header_invalid when it belongs to another header, cluster or generation
 */
export function readKey(plaintext: Secret, expected: KeyContext): DataKey {
  const stated = parseJsonObject(plaintext.reveal().toString('utf8'), 'the sealed data key')
  const { key, ...context } = stated
  if (canonicalJson(context) !== canonicalJson(expected) || typeof key !== 'string') {
    throw coordinatorFault(
      'coordinator.header_invalid',
      'the sealed data key belongs to another header, cluster or generation',
      {
        hint: 'the store mixes rows of different times: restore one whole backup',
      },
    )
  }
  return new DataKey(expected.generation, Secret.take(Buffer.from(key, 'base64url')))
}

/** The policy of the holders' way: k of n persons. */
export function holdersPolicy(holders: NonNullable<Header['holders']>): Policy {
  const persons = holders.list.map(({ name, key }) => ({
    kind: 'pin' as const,
    pin: 'person',
    config: { name, key },
  }))
  return threshold(holders.threshold, persons)
}

/** Seals the data key under one way and, where the machine can, proves it by opening it again. */
export async function makeWay(
  pins: Pins,
  kind: WayKind,
  policy: Policy,
  key: DataKey,
  context: KeyContext,
  clock: Clock,
): Promise<Insertable<WayTable>> {
  using plaintext = keyPlaintext(key, context)
  // A holder who is asked to open something else must not open this.
  const use = { purpose: 'coordinator', of: context.cluster } as const
  const sealed = await seal(pins, policy, plaintext, { generation: context.generation, use })
  const row = {
    id: newId(),
    kind,
    label: labelOf(kind, policy),
    sealed,
    generation: context.generation,
    created: clock.now(),
  }
  if (kind === 'holders') return { ...row, state: 'prepared', proven_at: null }
  using again = await open(pins, sealed)
  if (!again.equals(plaintext)) {
    throw coordinatorFault(
      'coordinator.way_unproven',
      `the new way ${row.label} did not give the key back`,
    )
  }
  return { ...row, state: 'active', proven_at: clock.now() }
}

/** Tries every automatic way at once and returns the first key that fits. */
export async function openByMachine(
  pins: Pins,
  ways: readonly Way[],
  expected: KeyContext,
): Promise<DataKey> {
  const automatic = ways.filter(({ kind, state }) => kind !== 'holders' && state === 'active')
  const attempts = automatic.map(async ({ sealed }) => {
    using plaintext = await open(pins, sealed)
    return readKey(plaintext, expected)
  })
  return await Promise.any(attempts)
}

/** Removes a way unless it is the last one that has been proven. */
export async function removeWay(work: Work, id: string): Promise<void> {
  const ways = await work
    .selectFrom('ways')
    .select(['id', 'proven_at', 'state'])
    .where('state', '!=', 'retired')
    .execute()
  if (!ways.some((way) => way.id === id)) {
    throw coordinatorFault('coordinator.way_unknown', `there is no way ${id}`, {
      hint: 'holdfast coordinator ways list',
    })
  }
  if (!ways.some((way) => way.id !== id && way.state === 'active' && way.proven_at !== null)) {
    throw coordinatorFault('coordinator.last_way', 'this is the last proven way to the data key', {
      hint: 'add and prove another way first: holdfast coordinator ways add',
    })
  }
  await work.deleteFrom('ways').where('id', '=', id).execute()
}

function labelOf(kind: WayKind, policy: Policy): string {
  if (policy.kind === 'threshold') return `${policy.threshold} of ${policy.children.length} holders`
  return `${kind} ${String(policy.config.url ?? policy.config.name ?? '')}`.trim()
}
