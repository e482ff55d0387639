import { type Clock, isFault, type Secret, systemClock } from '@holdfast/base'
import type { CoordinatorState, ReasonCode } from '@holdfast/protocol'
import type { Pins } from '@holdfast/seal'
import { checkClaimToken, claim, prepareClaim, readMarker, writeMarker } from './claim.ts'
import type { DataKey } from './data-key.ts'
import { coordinatorFault } from './faults.ts'
import { activateGeneration, type Candidate, prepareGeneration } from './generation.ts'
import { type Header, readHeader } from './header.ts'
import { type Identity, loadIdentity } from './identity.ts'
import { type Findings, judge } from './life.ts'
import { readSecret, type SecretName } from './secrets.ts'
import { openStore, type Store, type StoreLocation, type Work } from './store.ts'
import { openByMachine, readKey } from './ways.ts'

export interface CoordinatorOptions {
  /** Holds identity, marker, claim token and the host key; 0700. */
  directory: string
  store: StoreLocation
  pins: Pins
  clock?: Clock
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
  readonly identity: Identity
  readonly directory: string
  readonly pins: Pins
  readonly clock: Clock
  #open: OpenState | undefined
  #header: { header: Header; digest: string } | undefined
  #findings: Findings

  private constructor(
    options: CoordinatorOptions,
    store: Store,
    identity: Identity,
    findings: Findings,
  ) {
    this.store = store
    this.identity = identity
    this.directory = options.directory
    this.pins = options.pins
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
    await coordinator.refresh()
    if (coordinator.state === 'uninitialised') await prepareClaim(options.directory)
    return coordinator
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

  /** Looks at the store again: another instance may have changed or recovered it. */
  async refresh(): Promise<void> {
    const row = await headerRow(this.store)
    if (row === undefined) {
      this.#findings = { ...this.#findings, header: 'absent' }
      return
    }
    if (row.digest === this.#open?.digest) return await this.#readManifest()
    try {
      this.#header = { header: readHeader(row, this.identity.publicKey), digest: row.digest }
    } catch (error) {
      if (!isFault(error, 'coordinator.header_invalid')) throw error
      this.#findings = { ...this.#findings, header: 'invalid' }
      return
    }
    await writeMarker(this.directory, this.#header.header.cluster)
    this.#findings = { ...this.#findings, header: 'valid', marker: 'present' }
    await this.#tryMachines()
    await this.#readManifest()
  }

  /** Takes a new coordinator. `also` runs in the same transaction, to create its first user. */
  async claim(token: string, name: string, also: (work: Work) => Promise<void>): Promise<string> {
    this.require('uninitialised')
    await checkClaimToken(this.directory, token)
    const { cluster, key, header, digest } = await claim(this, name, also)
    this.#adopt({ key, header, digest })
    this.#findings = { ...this.#findings, marker: 'present', header: 'valid' }
    return cluster
  }

  /**
   * Opens the sealed state with what the holders' ceremony gave.
   * @throws Fault coordinator.header_invalid when it belongs to another state
   */
  openWith(plaintext: Secret): void {
    const { header, digest } = this.#requireHeader()
    const context = { cluster: header.cluster, generation: header.generation, headerDigest: digest }
    this.#adopt({ key: readKey(plaintext, context), header, digest })
  }

  /** Forgets the data key; the next start, refresh or ceremony may open it again. */
  seal(): void {
    this.#open?.key[Symbol.dispose]()
    this.#open = undefined
    this.#findings = { ...this.#findings, key: 'missing' }
  }

  /** Records that a node or a TPM has seen a newer generation, or that the holders accepted this one. */
  setWitness(witnessed: Findings['witnessed']): void {
    this.#findings = { ...this.#findings, witnessed }
  }

  async secret(name: SecretName): Promise<Secret> {
    const { key, header } = this.#requireOpen()
    return await readSecret(this.store.read, key, header.cluster, name)
  }

  async prepareGeneration(holders: Header['holders']): Promise<Candidate> {
    return await prepareGeneration(this, this.#requireOpen(), holders)
  }

  async activateGeneration(also: (work: Work) => Promise<void>): Promise<number> {
    const current = this.#requireOpen()
    const next = await activateGeneration(this, current, also)
    this.#adopt(next)
    return next.header.generation
  }

  /** @throws Fault coordinator.not_in_this_state unless in one of these states */
  require(...states: readonly CoordinatorState[]): void {
    if (states.includes(this.state)) return
    throw coordinatorFault(
      'coordinator.not_in_this_state',
      `this is possible in ${states.join(' or ')}, and the coordinator is in ${this.state} (${this.reason})`,
      {
        hint: 'holdfast coordinator status',
      },
    )
  }

  async manifestChanged(): Promise<void> {
    await this.#readManifest()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.seal()
    await this.store[Symbol.asyncDispose]()
  }

  #adopt(open: OpenState): void {
    this.#open?.key[Symbol.dispose]()
    this.#open = open
    this.#header = { header: open.header, digest: open.digest }
    this.#findings = { ...this.#findings, key: 'open' }
  }

  async #tryMachines(): Promise<void> {
    const { header, digest } = this.#requireHeader()
    const ways = await this.store.read.selectFrom('ways').selectAll().execute()
    const context = { cluster: header.cluster, generation: header.generation, headerDigest: digest }
    try {
      this.#adopt({ key: await openByMachine(this.pins, ways, context), header, digest })
    } catch (error) {
      const mismatch =
        error instanceof AggregateError &&
        error.errors.some((each) => isFault(each, 'coordinator.header_invalid'))
      this.#findings = { ...this.#findings, key: mismatch ? 'mismatch' : 'missing' }
    }
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
