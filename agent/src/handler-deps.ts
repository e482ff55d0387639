import type { KeyObject } from 'node:crypto'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { LifeEvent } from './life-event.ts'
import type { LifeState } from './life-state.ts'
import type { NodeVault } from './node-vault.ts'
import type { NodeWorks } from './node-works.ts'

/** What handlers may use of the agent. */
export interface HandlerDeps {
  works: NodeWorks
  vault: NodeVault
  exchange: KeyObject
  report: () => Promise<NodeReport>
  rehearse: () => Promise<Record<string, unknown>>
  /** Tries a pushed passphrase, sealed for this node. @throws as `UnlockDesk.push` */
  push: (sealed: string) => Promise<unknown>
  phase: () => LifeState['phase']
  tell: (event: LifeEvent) => Promise<boolean>
  /** The command that is ending this node's life, if one is. */
  ending: () => string | undefined
  /** Answers an end that has given way to a harder one. */
  supersede: (command: string, by: string) => Promise<void>
}
