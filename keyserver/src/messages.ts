import { Fault, type FaultKind, isFault, messageOf } from '@holdfast/base'
import type { Health } from './engine.ts'
import type { Gauges } from './events.ts'
import type { FrontSettings } from './front.ts'
import type { RecoveryEvent } from './listener.ts'

// What the primary process and its workers tell each other. Keys never cross: every worker reads the
// key directory itself.

export type ToWorker =
  | { kind: 'start'; settings: FrontSettings; logLevel: string }
  | { kind: 'reload' | 'collect'; id: number }
  | { kind: 'metrics'; id: number; text: string }
  | { kind: 'stop' }

export type FromWorker =
  | { kind: 'ready'; port: number; health: Health }
  | { kind: 'failed'; fault: SentFault }
  | { kind: 'done'; id: number; fault?: SentFault }
  | { kind: 'events'; events: RecoveryEvent[] }
  | { kind: 'beat'; gauges: Gauges; health: Health }
  | { kind: 'metrics'; id: number }

export interface SentFault {
  code: string
  kind: FaultKind
  message: string
  hint?: string
  details?: Record<string, unknown>
}

/** A fault as JSON for another process; anything else as a defect of this one. */
export function packFault(error: unknown): SentFault {
  if (!isFault(error)) {
    return { code: 'keyserver.worker_failed', kind: 'internal', message: messageOf(error) }
  }
  const { code, kind, message, hint, details } = error
  return {
    code,
    kind,
    message,
    ...(hint === undefined ? {} : { hint }),
    ...(details === undefined ? {} : { details }),
  }
}

/** The fault that another process packed, code and kind as they were. */
export function unpackFault({ code, kind, message, hint, details }: SentFault): Fault {
  return new Fault(code, kind, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(details === undefined ? {} : { details }),
  })
}
