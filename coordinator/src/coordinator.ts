import { type Clock, isFault, type Secret, systemClock } from '@holdfast/base'
import type { CoordinatorState, ReasonCode } from '@holdfast/protocol'
import type { Pins, Policy } from '@holdfast/seal'
import type { Insertable } from 'kysely'
import { recordReading, repairTail } from './audit.ts'
import {
  checkClaimToken,
  claim,
  prepareClaim,
  readMarker,
  removeMarker,
  writeMarker,
} from './claim.ts'
import type { DataKey } from './data-key.ts'
import { isDismissed } from './dismissal-record.ts'
import { coordinatorFault } from './faults.ts'
import { activateGeneration, type Candidate, prepareGeneration } from './generation.ts'
import { type Header, readHeader } from './header.ts'
import { type Identity, installIdentity, loadIdentity } from './identity.ts'
import { type Findings, judge, requireState } from './life.ts'
import { readSecret, type SecretName } from './secrets.ts'
import { isUnreachable, openStore, type Store, type StoreLocation, type Work } from './store.ts'
import type { WayTable } from './tables.ts'
import { makeWay, openByMachine, readKey, type WayKind } from './ways.ts'
import { type GenerationCounter, HostWitness } from './witness.ts'

export interface CoordinatorOptions {
  /** Holds identity, marker, claim token and the host key; 0700. */
  directory: string
  store: StoreLocation
  pins: Pins
  clock?: Clock
  /** Witnesses the generation where no old disk can be put back. */
  counter?: GenerationCounter | undefined
}

/** The sealed state while it is open: never outlives `seal()`. */
interface OpenState {
  readonly key: DataKey
  readonly header: Header
  readonly digest: string
}

/**
 * One instance of the coordinator: what it found, whether its state is open, and the changes of
 * state. Everything else (ceremonies, nodes, the API) is built on top and asks it for the store and
 * for secrets.
 */
export class Coordinator implements AsyncDisposable {
  readonly store: Store
  readonly directory: string
  readonly pins: Pins
  readonly clock: Clock
  /** What this host has seen of the generations, apart from the store. */
  readonly host: HostWitness
  #identity: Identity
  #open: OpenState | undefined
  #header: { header: Header; digest: string } | undefined
  #findings: Findings
  /** The highest generation that somebody has shown to have seen. */
  #witnessed = 0
  /** When it was sealed by command: until then, what could open it no longer does by itself. */
  #sealedAt: number | undefined
  /** How often that was. */
  #seals = 0
  readonly #trustListeners: (() => void)[] = []
  #trust = ''

  private constructor(
    options: CoordinatorOptions,
    store: Store,
    identity: Identity,
    findings: Findings,
  ) {
    this.store = store
    this.#identity = identity
    this.directory = options.directory
    this.pins = options.pins
    this.host = new HostWitness(options.directory, options.counter)
    this.clock = options.clock ?? systemClock
    this.#findings = findings
  }

  /** Opens the store, looks at what is there, and opens the sealed state if a machine can. */
  static async start(options: CoordinatorOptions): Promise<Coordinator> {
    const marker = await readMarker(options.directory)
    const store = await openStore(options.store)
    const claimed = marker !== undefined || (await headerRow(store)) !== undefined
    const identity = await loadIdentity(options.directory, !claimed)
    const coordinator = new Coordinator(options, store, identity, {
      marker: marker === undefined ? 'absent' : 'present',
      store: 'reachable',
      header: 'absent',
      key: 'missing',
      witnessed: 'consistent',
      manifest: 'absent',
    })
    await repairTail(store, coordinator.clock)
    await coordinator.refresh()
    if (coordinator.state === 'uninitialised') await prepareClaim(options.directory)
    return coordinator
  }

  /** What clients pin; exchanged once, when a restored host gets its cluster's own back. */
  get identity(): Identity {
    return this.#identity
  }

  /** Calls back when the identity or the fleet's authority becomes another one: both stand in TLS. */
  onTrust(listener: () => void): void {
    this.#trustListeners.push(listener)
  }

  #noticeTrust(): void {
    const trust = `${this.#identity.digest} ${this.#header?.header.authority}`
    if (trust === this.#trust) return
    this.#trust = trust
    for (const listener of this.#trustListeners) listener()
  }

  get sealedAt(): number | undefined {
    return this.#sealedAt
  }

  /** How often it was sealed by command: what began to open it before the last time must not do so. */
  get seals(): number {
    return this.#seals
  }

  /** The highest generation that a node or this host has witnessed. */
  get witnessed(): number {
    return this.#witnessed
  }

  get state(): CoordinatorState {
    return judge(this.#findings).state
  }

  get reason(): ReasonCode {
    return judge(this.#findings).reason
  }

  /** The plaintext header: known while sealed, too. */
  get header(): Header | undefined {
    return this.#header?.header
  }

  get headerDigest(): string | undefined {
    return this.#header?.digest
  }

  /** Looks at the store again: another instance may have changed, recovered or dismissed it. */
  async refresh(): Promise<void> {
    let row: Awaited<ReturnType<typeof headerRow>>
    try {
      row = await headerRow(this.store)
    } catch (error) {
      if (!isUnreachable(error)) throw error
      this.#findings = { ...this.#findings, store: 'unreachable' }
      return
    }
    this.#findings = { ...this.#findings, store: 'reachable' }
    if (row === undefined) return await this.#nothingThere()
    if (row.digest === this.#open?.digest) return await this.#readManifest()
    try {
      this.#header = { header: readHeader(row, this.#identity.pinned), digest: row.digest }
    } catch (error) {
      if (!isFault(error, 'coordinator.header_invalid')) throw error
      this.#forget()
      this.#findings = { ...this.#findings, header: 'invalid' }
      return
    }
    this.#noticeTrust()
    await writeMarker(this.directory, this.#header.header.cluster)
    this.#findings = { ...this.#findings, header: 'valid', marker: 'present' }
    if (this.#sealedAt === undefined) await this.#tryMachines()
    await this.#readManifest()
  }

  /** An empty store is fresh only where there is no marker, or the marker's state was dismissed. */
  async #nothingThere(): Promise<void> {
    this.#forget()
    this.#header = undefined
    this.#witnessed = 0
    this.#findings = {
      ...this.#findings,
      header: 'absent',
      manifest: 'absent',
      witnessed: 'consistent',
    }
    const marker = await readMarker(this.directory)
    if (marker === undefined) return
    if (!(await isDismissed(this.store.read, this.#identity.pinned, marker))) return
    await prepareClaim(this.directory)
    await removeMarker(this.directory)
    this.#sealedAt = undefined
    this.#findings = { ...this.#findings, marker: 'absent' }
  }

  /** Takes a new coordinator. `also` runs in the same transaction, to create its first user. */
  async claim(token: string, name: string, also: (work: Work) => Promise<void>): Promise<string> {
    this.require('uninitialised')
    await checkClaimToken(this.directory, token)
    const { cluster, key, header, digest } = await claim(this, name, also)
    await this.#adopt({ key, header, digest }, this.#seals)
    this.#findings = { ...this.#findings, marker: 'present', header: 'valid' }
    return cluster
  }

  /**
   * Opens the sealed state with what the holders' ceremony gave.
   * @param seals as it was when the shares were about to be read
   * @throws Fault coordinator.header_invalid when it belongs to another state,
   *   coordinator.data_key_sealed when it was sealed by command since
   */
  async openWith(plaintext: Secret, seals: number): Promise<void> {
    const { header, digest } = this.#requireHeader()
    const context = { cluster: header.cluster, generation: header.generation, headerDigest: digest }
    if (await this.#adopt({ key: readKey(plaintext, context), header, digest }, seals)) return
    throw coordinatorFault('coordinator.data_key_sealed', 'it was sealed by command meanwhile', {
      hint: 'begin another recovery: holdfast coordinator recover',
    })
  }

  /** Forgets the data key; only a ceremony that begins from now on, or a restart, opens it again. */
  seal(): void {
    this.#sealedAt = this.clock.now()
    this.#seals += 1
    this.#forget()
  }

  #forget(): void {
    this.#open?.key[Symbol.dispose]()
    this.#open = undefined
    this.#findings = { ...this.#findings, key: 'missing' }
  }

  /**
   * Records that somebody has seen the generation `seen`, or that the holders accepted this state.
   * A state older than what was seen is not run before the holders have accepted it.
   */
  setWitness(witnessed: Findings['witnessed'], seen = 0): void {
    const own = this.#header?.header.generation ?? 0
    this.#witnessed = Math.max(this.#witnessed, seen, witnessed === 'ahead' ? own + 1 : 0)
    this.#findings = { ...this.#findings, witnessed }
  }

  /** A secret of the sealed state; every reading is in the audit log. */
  async secret(name: SecretName, actor = 'coordinator'): Promise<Secret> {
    const event = { actor, action: 'secret.read', subject: name }
    return await recordReading(this.store, this.clock, event, () => this.#readSecret(name))
  }

  async #readSecret(name: SecretName): Promise<Secret> {
    const { key, header } = this.#requireOpen()
    try {
      return await readSecret(this.store.read, key, header.cluster, name)
    } catch (error) {
      if (!isFault(error, 'coordinator.row_unreadable')) throw error
      // Another instance may have rotated the data key since this one looked.
      await this.refresh()
      const now = this.#requireOpen()
      if (now.key === key) throw error
      return await readSecret(this.store.read, now.key, now.header.cluster, name)
    }
  }

  /** Seals the data key under one more way; the caller stores the row with `requireCurrent(digest)`. */
  async makeWay(
    kind: WayKind,
    policy: Policy,
  ): Promise<{ row: Insertable<WayTable>; digest: string }> {
    const { key, header, digest } = this.#requireOpen()
    const context = { cluster: header.cluster, generation: header.generation, headerDigest: digest }
    return { row: await makeWay(this.pins, kind, policy, key, context, this.clock), digest }
  }

  async prepareGeneration(holders: Header['holders'], dropBroken = false): Promise<Candidate> {
    const options = { above: this.#witnessed, dropBroken }
    return await prepareGeneration(this, this.#requireOpen(), holders, options)
  }

  /** @param digest of the prepared generation that is meant */
  async activateGeneration(digest: string, also: (work: Work) => Promise<void>): Promise<number> {
    const [current, seals] = [this.#requireOpen(), this.#seals]
    const next = await activateGeneration(this, current, digest, also)
    if (!(await this.#adopt(next, seals))) await this.refresh() // it stays sealed, in the new generation
    return next.header.generation
  }

  /** @throws Fault coordinator.not_in_this_state unless in one of these states */
  require(...states: readonly CoordinatorState[]): void {
    requireState(judge(this.#findings), states)
  }

  async manifestChanged(): Promise<void> {
    await this.#readManifest()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forget()
    await this.store[Symbol.asyncDispose]()
  }

  /** False when somebody has sealed it by command since it had been sealed `seals` times: that counts. */
  async #adopt(open: OpenState, seals: number): Promise<boolean> {
    const { cluster, generation } = open.header
    if (this.#identity.temporary) await this.#bringIdentity(open)
    const seen = await this.host.look(cluster)
    if (this.#seals !== seals) {
      open.key[Symbol.dispose]()
      return false
    }
    // An old disk says nothing about how much newer the newest was.
    const before = seen.behind ? Math.max(seen.generation, generation + 1) : seen.generation
    this.#witnessed = Math.max(this.#witnessed, before)
    if (this.#open?.key !== open.key) this.#open?.key[Symbol.dispose]()
    this.#open = open
    this.#sealedAt = undefined
    this.#header = { header: open.header, digest: open.digest }
    const witnessed = this.#witnessed > generation ? 'ahead' : 'consistent'
    this.#findings = { ...this.#findings, key: 'open', witnessed }
    this.#noticeTrust()
    await this.host.note({ cluster, generation: Math.max(generation, this.#witnessed) })
    return true
  }

  async #bringIdentity({ key, header }: OpenState): Promise<void> {
    using pem = await readSecret(this.store.read, key, header.cluster, 'identity-key')
    this.#identity = await installIdentity(this.directory, pem, this.#identity)
  }

  async #tryMachines(): Promise<void> {
    const { header, digest } = this.#requireHeader()
    const seals = this.#seals
    const ways = await this.store.read.selectFrom('ways').selectAll().execute()
    const context = { cluster: header.cluster, generation: header.generation, headerDigest: digest }
    let key: DataKey
    try {
      key = await openByMachine(this.pins, ways, context)
    } catch (error) {
      // A ceremony may have opened it while the machines were being asked.
      if (this.#open?.digest === digest) return
      const mismatch =
        error instanceof AggregateError &&
        error.errors.some((each) => isFault(each, 'coordinator.header_invalid'))
      this.#forget()
      this.#findings = { ...this.#findings, key: mismatch ? 'mismatch' : 'missing' }
      return
    }
    await this.#adopt({ key, header, digest }, seals)
  }

  async #readManifest(): Promise<void> {
    const row = await this.store.read
      .selectFrom('manifests')
      .select('version')
      .limit(1)
      .executeTakeFirst()
    this.#findings = { ...this.#findings, manifest: row === undefined ? 'absent' : 'present' }
  }

  #requireHeader(): { header: Header; digest: string } {
    if (this.#header !== undefined) return this.#header
    throw coordinatorFault('coordinator.storage_missing', 'there is no sealed state here')
  }

  #requireOpen(): OpenState {
    if (this.#open !== undefined) return this.#open
    throw coordinatorFault('coordinator.data_key_sealed', 'the coordinator is sealed', {
      hint: 'holdfast coordinator status',
    })
  }
}

async function headerRow(store: Store) {
  return await store.read.selectFrom('header').selectAll().where('id', '=', 1).executeTakeFirst()
}
