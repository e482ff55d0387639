import type { ColumnType } from 'kysely'

// The store's tables as both engines have them. Moments are milliseconds since 1970 as whole
// numbers; documents are JSON text; secrets are bytes under the data key.

type Optional<T> = ColumnType<T | null, T | null | undefined, T | null>

export interface HeaderTable {
  /** Always 1: there is one. */
  id: number
  body: string
  signature: string
  digest: string
  version: number
}

export interface WayTable {
  id: string
  kind: string
  label: string
  sealed: string
  generation: number
  state: string
  created: number
  proven_at: Optional<number>
}

export interface SecretTable {
  name: string
  generation: number
  value: Uint8Array
}

export interface ManifestTable {
  version: number
  digest: string
  body: string
  at: number
  by: string
  approved_by: string
}

export interface HolderTable {
  name: string
  kid: string
  key: string
  proven_at: Optional<number>
}

export interface CeremonyTable {
  id: string
  kind: string
  state: string
  digest: string
  nonce: string
  generation: number
  threshold: number
  detail: string
  created: number
  expires: number
}

export interface AnswerTable {
  ceremony: string
  holder: string
  at: number
  code: string
  /** The answer, encrypted to the identity key; empty for a refused one. */
  sealed: string
}

export interface UserTable {
  name: string
  password: Optional<string>
  roles: string
}

/** Failed logins: of a user's name, or of an address they come from. */
export interface AttemptTable {
  name: string
  count: number
  since: number
  until: number
}

/** How far a sink of the audit log has come: the last sequence that it has taken. */
export interface SinkTable {
  name: string
  position: number
}

export interface SessionTable {
  hash: string
  user: string
  csrf: string
  expires: number
}

export interface TokenTable {
  id: string
  hash: string
  user: string
  label: string
  scopes: string
  expires: number
  last_used: Optional<number>
}

export interface AuditTable {
  sequence: number
  at: number
  actor: string
  action: string
  subject: string
  outcome: string
  data: string
  previous: string
  hash: string
}

export interface NodeTable {
  node: string
  name: string
  address: string
  domain: Optional<string>
  identity: string
  exchange: string
  wireguard: string
  certificate: string
  phase: string
  epoch: number
  threshold: number
  guardians: string
  frozen: number
  /** Why and since when, JSON, while it is frozen. */
  freeze: Optional<string>
  /** Where it listens, JSON: peer (HTTPS) and wireguard (UDP). */
  ports: string
  heard_at: Optional<number>
  instance: Optional<string>
  report: Optional<string>
  witnessed: number
  /** The number of its latest session; see session-numbers.ts. */
  session: ColumnType<number, number | undefined, number>
  /** 1 when it was enrolled before there were peers. */
  genesis: ColumnType<number, number | undefined, number>
}

export interface InviteTable {
  id: string
  hash: string
  label: string
  expires: number
  uses: number
  used: number
  domain: Optional<string>
  created_by: string
  revoked: number
}

export interface EnrolmentTable {
  id: string
  invite: string
  node: Optional<string>
  address: string
  name: string
  state: string
  code: Optional<string>
  message: Optional<string>
  created: number
  /** A reservation that has come no further by then is released. */
  expires: number
  genesis: number
  by: string
}

export interface LeaseTable {
  address: string
  node: Optional<string>
  until: number
}

export interface CommandTable {
  id: string
  node: string
  command: string
  arguments: string
  by: string
  approved_by: Optional<string>
  state: string
  /** Under which it is signed; see command-issues.ts. */
  issue: number
  created: number
  /** A command without a result by then is given up. */
  expires: number
  finished: Optional<number>
  progress: Optional<string>
  output: Optional<string>
  result: Optional<string>
  code: Optional<string>
  message: Optional<string>
}

export interface DocumentTable {
  name: string
  version: number
  body: string
  signature: string
}

export interface ReshareTable {
  id: string
  ward: string
  /** Why: see `causes` in reshare-plan.ts. */
  cause: string
  state: string
  /** 0 until its guardians have been chosen. */
  epoch: number
  threshold: number
  /** Node ids, JSON. */
  guardians: string
  /** The guardians with their keys as the ward is told, JSON; from the order on it never changes. */
  order: Optional<string>
  created: number
  /** When it came into its state. */
  since: number
  /** Guardians that it failed for, JSON. */
  blamed: string
  code: Optional<string>
  message: Optional<string>
}

/** A key that a guardian has, or is asked to make or to destroy; without a row there is none. */
export interface WardKeyTable {
  ward: string
  epoch: number
  guardian: string
  /** The ward's public identity key, PEM: it may have no record any more. */
  identity: string
  state: string
  /** The id under which the guardian answers. */
  errand: string
  key: Optional<string>
  signature: Optional<string>
  code: Optional<string>
}

export interface Tables {
  header: HeaderTable
  ways: WayTable
  secrets: SecretTable
  manifests: ManifestTable
  holders: HolderTable
  ceremonies: CeremonyTable
  answers: AnswerTable
  users: UserTable
  sessions: SessionTable
  tokens: TokenTable
  attempts: AttemptTable
  sinks: SinkTable
  audit: AuditTable
  nodes: NodeTable
  invites: InviteTable
  enrolments: EnrolmentTable
  leases: LeaseTable
  commands: CommandTable
  documents: DocumentTable
  reshares: ReshareTable
  ward_keys: WardKeyTable
}
