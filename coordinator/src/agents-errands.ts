import { createPublicKey, type KeyObject } from 'node:crypto'
import { type Clock, canonicalJson, isFault, isObject, messageOf, parseJson } from '@holdfast/base'
import { bareJwk, parseEcPublicJwk } from '@holdfast/crypto'
import {
  type ErrandFrame,
  isSigned,
  type Report,
  signErrand,
  type Errand as Unsigned,
} from '@holdfast/link'
import { boundGuardianSchema } from '@holdfast/protocol/frames'
import { z } from 'zod'
import { record } from './audit.ts'
import type { Result } from './commands.ts'
import type { Database, Store, Work } from './store.ts'
import { Together } from './together.ts'

// The coordinator's own errands to agents: making and destroying keys for wards, and moving a ward to
// its new guardians. What is to be said follows from the rows of `ward_keys` and `reshares` alone; it
// is said by whichever instance holds the agent, again after every reconnection and from time to time,
// until the answer is here. The same errand is the same bytes every time.

export type WardKey = Extract<Report, { kind: 'ward-key' }>

export interface Errand {
  node: string
  frame: Unsigned
}

export interface ErrandsOptions {
  store: Store
  clock: Clock
  /** This instance's name, as it stands beside the nodes it holds. */
  instance: string
  cluster: () => string
  /** The command key; undefined while the coordinator is sealed, which orders nothing. */
  signer: () => Promise<{ key: KeyObject; cluster: string } | undefined>
  /** Sends to an agent of this instance. @throws Fault link.session_closed, node.not_connected */
  deliver: (node: string, frame: ErrandFrame) => Promise<void>
  isHeld: (node: string) => boolean
  /** An answer has changed what is to be done next. */
  onMoved: () => void
  onError: (error: unknown) => void
}

/** An agent that took an errand in and has not answered is told again. */
const repeatAfter = 15_000

export class Errands {
  readonly #options: ErrandsOptions
  /** By node: when each errand was sent in this session. */
  readonly #sent = new Map<string, Map<string, number>>()
  readonly #together: Together

  constructor(options: ErrandsOptions) {
    this.#options = options
    this.#together = new Together(options.store)
  }

  /** Tells the agents of this instance what is new to them. */
  async send(): Promise<void> {
    const { store, instance, clock, isHeld } = this.#options
    const now = clock.now()
    const open = await openErrands(store.read, instance)
    const still = new Map<string, Map<string, number>>()
    const due: Errand[] = []
    for (const { node, frame } of open) {
      if (!isHeld(node)) continue
      const at = this.#sent.get(node)?.get(frame.id) ?? Number.NEGATIVE_INFINITY
      const again = now - at >= repeatAfter
      still.set(node, (still.get(node) ?? new Map()).set(frame.id, again ? now : at))
      if (again) due.push({ node, frame })
    }
    this.#sent.clear()
    for (const [node, errands] of still) this.#sent.set(node, errands)
    await this.#sendAll(due)
  }

  /** To read the key is written down: only who has something to say reads it. */
  async #sendAll(due: readonly Errand[]): Promise<void> {
    if (due.length === 0) return
    try {
      const signer = await this.#options.signer()
      if (signer === undefined) return this.#unsent(due)
      const { key, cluster } = signer
      for (const { node, frame } of due)
        this.#deliver(node, signErrand(key, { cluster, node }, frame))
    } catch (error) {
      this.#unsent(due)
      throw error
    }
  }

  /** They are said at the next look. */
  #unsent(due: readonly Errand[]): void {
    for (const { node, frame } of due) this.#sent.get(node)?.delete(frame.id)
  }

  /** The node's session has ended: a new one is told everything again. */
  forget(node: string): void {
    this.#sent.delete(node)
  }

  /** Takes in a key that a guardian made. A wrong one counts as a refusal. */
  async takeKey(guardian: string, frame: WardKey): Promise<void> {
    const { store, clock, cluster } = this.#options
    const asked = await askedOf(store.read, guardian, frame)
    if (asked === undefined) return // asked for by nobody, or long ago
    const problem = problemOf(asked.identity, cluster(), guardian, frame)
    await this.#together.add(async (work) => {
      if (problem === undefined) return await keepKey(work, guardian, frame)
      await refuse(work, clock, { ...frame, guardian, code: 'reshare.key_invalid', text: problem })
    })
    this.#options.onMoved()
  }

  /** Takes in the answer to an errand; false when it answers something else. */
  async takeResult(node: string, result: Result): Promise<boolean> {
    const { store, clock } = this.#options
    const key = await keyErrand(store.read, node, result.command)
    const order =
      key === undefined ? await orderErrand(store.read, node, result.command) : undefined
    if (key === undefined && order === undefined) return false
    const { code = 'agent.internal', message: text = '' } = result
    if (key !== undefined && !result.ok && key.state === 'asked')
      await this.#together.add((work) => refuse(work, clock, { ...key, code, text }))
    else if (key !== undefined && result.ok && key.state === 'retiring')
      await this.#together.add((work) => forgetKey(work, result.command))
    else if (order !== undefined && !result.ok)
      await this.#together.add((work) => refuseOrder(work, clock, order, { code, text }))
    this.#options.onMoved()
    return true
  }

  #deliver(node: string, frame: ErrandFrame): void {
    this.#options.deliver(node, frame).catch((error: unknown) => {
      this.#sent.get(node)?.delete(frame.id)
      const away = isFault(error, 'link.session_closed') || isFault(error, 'node.not_connected')
      if (!away) this.#options.onError(error)
    })
  }
}

/** Everything that the agents of one instance have to be told or to answer. */
async function openErrands(database: Database, instance: string): Promise<Errand[]> {
  const keys = await database
    .selectFrom('ward_keys')
    .innerJoin('nodes', 'nodes.node', 'ward_keys.guardian')
    .select(['ward_keys.ward', 'ward_keys.guardian', 'ward_keys.epoch', 'ward_keys.identity'])
    .select(['ward_keys.state', 'ward_keys.errand'])
    .where('ward_keys.state', 'in', ['asked', 'retiring'])
    .where('nodes.instance', '=', instance)
    .orderBy('ward_keys.epoch')
    .execute()
  const orders = await database
    .selectFrom('reshares')
    .innerJoin('nodes', 'nodes.node', 'reshares.ward')
    .select(['reshares.id', 'reshares.ward', 'reshares.epoch', 'reshares.threshold'])
    .select('reshares.order')
    .where('reshares.state', '=', 'ordered')
    .where('nodes.instance', '=', instance)
    .execute()
  return [...keys.map(wardErrand), ...orders.map(reshareErrand)]
}

function wardErrand(row: {
  ward: string
  guardian: string
  epoch: number
  identity: string
  state: string
  errand: string
}): Errand {
  const { ward, guardian, epoch, identity, errand: id } = row
  const action = row.state === 'asked' ? 'prepare' : 'retire'
  return { node: guardian, frame: { kind: 'ward', action, ward, identity, epoch, id } }
}

function reshareErrand(row: {
  id: string
  ward: string
  epoch: number
  threshold: number
  order: string | null
}): Errand {
  const { id, ward, epoch, threshold } = row
  const guardians = z.array(boundGuardianSchema).parse(parseJson(row.order ?? '[]', 'the order'))
  return { node: ward, frame: { kind: 'reshare', id, epoch, threshold, guardians } }
}

interface Asked {
  /** The guardian's public identity key, PEM. */
  identity: string
}

async function askedOf(
  database: Database,
  guardian: string,
  { ward, epoch }: WardKey,
): Promise<Asked | undefined> {
  return await database
    .selectFrom('ward_keys')
    .innerJoin('nodes', 'nodes.node', 'ward_keys.guardian')
    .select('nodes.identity')
    .where('ward_keys.guardian', '=', guardian)
    .where('ward_keys.ward', '=', ward)
    .where('ward_keys.epoch', '=', epoch)
    .where('ward_keys.state', 'in', ['asked', 'made'])
    .executeTakeFirst()
}

/** What is wrong with a key, if anything is: its form, or the guardian's signature. */
function problemOf(
  identity: string,
  cluster: string,
  guardian: string,
  { ward, epoch, key, signature }: WardKey,
): string | undefined {
  try {
    const bare = bareJwk(parseEcPublicJwk(key, 'the key'))
    if (canonicalJson({ ...bare }) !== canonicalJson(key)) return 'it is more than a public key'
  } catch (error) {
    return messageOf(error)
  }
  if (!isObject(key)) return 'it is no key'
  const body = { cluster, guardian, ward, epoch, key }
  if (isSigned(createPublicKey(identity), 'ward-key', body, signature)) return undefined
  return 'the guardian has not signed it'
}

/** Until the ward has been told, the last key that the guardian gave counts. */
async function keepKey(work: Work, guardian: string, frame: WardKey): Promise<void> {
  const { ward, epoch, key, signature } = frame
  const preparing = await work
    .selectFrom('reshares')
    .select('id')
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('state', '=', 'preparing')
    .executeTakeFirst()
  if (preparing === undefined) return
  await work
    .updateTable('ward_keys')
    .set({ state: 'made', key: canonicalJson(key), signature })
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('guardian', '=', guardian)
    .where('state', 'in', ['asked', 'made'])
    .execute()
}

interface Refusal {
  ward: string
  epoch: number
  guardian: string
  code: string
  text: string
}

async function refuse(work: Work, clock: Clock, refusal: Refusal): Promise<void> {
  const { ward, epoch, guardian, code, text } = refusal
  const { numUpdatedRows } = await work
    .updateTable('ward_keys')
    .set({ state: 'refused', code })
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('guardian', '=', guardian)
    .where('state', '=', 'asked')
    .executeTakeFirst()
  // Said once: a node that says it again and again must not fill the log.
  if (numUpdatedRows === 0n) return
  await record(work, clock, {
    actor: `node:${guardian}`,
    action: 'reshare.key_refused',
    subject: ward,
    outcome: 'failed',
    data: { epoch, code, text: text.slice(0, 500) },
  })
}

async function forgetKey(work: Work, errand: string): Promise<void> {
  await work
    .deleteFrom('ward_keys')
    .where('errand', '=', errand)
    .where('state', '=', 'retiring')
    .execute()
}

async function refuseOrder(
  work: Work,
  clock: Clock,
  { id, ward, epoch }: { id: string; ward: string; epoch: number },
  { code, text }: { code: string; text: string },
): Promise<void> {
  const message = text.slice(0, 500)
  const { numUpdatedRows } = await work
    .updateTable('reshares')
    .set({ code, message })
    .where('id', '=', id)
    .where('state', '=', 'ordered')
    .where('code', 'is', null)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) return // as above
  await record(work, clock, {
    actor: `node:${ward}`,
    action: 'reshare.order_refused',
    subject: ward,
    outcome: 'failed',
    data: { epoch, code, text: message },
  })
}

async function keyErrand(database: Database, guardian: string, errand: string) {
  return await database
    .selectFrom('ward_keys')
    .select(['ward', 'epoch', 'guardian', 'state'])
    .where('errand', '=', errand)
    .where('guardian', '=', guardian)
    .executeTakeFirst()
}

async function orderErrand(database: Database, ward: string, id: string) {
  return await database
    .selectFrom('reshares')
    .select(['id', 'ward', 'epoch'])
    .where('id', '=', id)
    .where('ward', '=', ward)
    .executeTakeFirst()
}
