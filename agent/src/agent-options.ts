import type { Clock } from '@holdfast/base'
import type { SessionState } from '@holdfast/link'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { LifeState } from './life-state.ts'
import type { NodeNetworkOptions } from './node-network.ts'
import type { WorksOptions } from './node-works.ts'

/** What an agent is started with. */
export interface AgentOptions {
  /** Where keys and boot state are, outside of the vault. */
  directory: string
  /** On a tmpfs. */
  runtimeDirectory: string
  /** The disk that becomes, or is, the vault. */
  device: string
  host?: string
  enrolmentPort: number
  peerPort: number
  wireguardPort: number
  /** The network interface of this node's tunnel; without it there is none. */
  tunnel?: NonNullable<NodeNetworkOptions['tunnel']>
  /** The TPM that seals this node's keys, as TPM2TOOLS_TCTI; without it they are in plain files. */
  tpm?: string
  onEvent?: (event: AgentEvent) => void
  clock?: Clock
  backoff?: { base: number; most: number }
  works?: WorksOptions
}

/** What an agent tells whoever runs it; the code is for the console and nobody else. */
export type AgentEvent =
  | { kind: 'code'; code: string }
  | { kind: 'enrolment_port'; port: number }
  | { kind: 'peer_port'; port: number }
  | { kind: 'repaired'; copies: readonly string[] }
  | { kind: 'phase'; phase: LifeState['phase']; task?: string; step?: string }
  | { kind: 'session'; state: SessionState['kind'] }
  | { kind: 'incident'; code: string; text: string }
  | { kind: 'waiting'; text: string }
  /** Panic 2 or 3 is over: this process must end, and the next start is a new machine's. */
  | { kind: 'forgotten' }

export interface Agent extends AsyncDisposable {
  readonly node: string
  readonly state: LifeState
  report(): Promise<NodeReport>
}
