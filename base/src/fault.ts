/** What sort of trouble a fault is; the command line derives its exit code from this alone. */
export type FaultKind =
  | 'usage' // the caller asked in a way that cannot be understood
  | 'invalid' // data from outside is malformed
  | 'refused' // a rule of the product forbids it
  | 'unavailable' // something did not answer; trying again may help
  | 'integrity' // data is authentic-looking but wrong: tampered, foreign, stale
  | 'absent' // a file, keyslot, key, program or device is not there
  | 'busy' // somebody else holds it
  | 'internal' // a defect of ours

export interface FaultOptions {
  /** One line that tells the operator what to do or type next. */
  hint?: string
  cause?: unknown
  /** Machine-readable facts for `--json`; never a secret. */
  details?: Record<string, unknown>
}

/** An error an operator can meet: a stable code, a message naming cause and thing, and a hint. */
export class Fault extends Error {
  override readonly name = 'Fault'
  readonly code: string
  readonly kind: FaultKind
  readonly hint: string | undefined
  readonly details: Record<string, unknown> | undefined

  constructor(code: string, kind: FaultKind, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.code = code
    this.kind = kind
    this.hint = options.hint
    this.details = options.details
  }

  toJSON(): Record<string, unknown> {
    return {
      code: this.code,
      kind: this.kind,
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      ...(this.details === undefined ? {} : { details: this.details }),
    }
  }
}

/** Makes the faults of one part. The table is the part's complete list of codes. */
export interface FaultMaker<Code extends string> {
  (code: Code, message: string, options?: FaultOptions): Fault
  readonly codes: Readonly<Record<Code, FaultKind>>
}

/** Declares a part's fault codes once; the result throws nothing, it makes the fault to throw. */
export function faults<const Table extends Record<string, FaultKind>>(
  table: Table,
): FaultMaker<keyof Table & string> {
  const make = (code: keyof Table & string, message: string, options?: FaultOptions): Fault =>
    new Fault(code, table[code] ?? 'internal', message, options)
  return Object.assign(make, { codes: table })
}

/** True when `error` is a fault, and of that code if one is given. */
export function isFault(error: unknown, code?: string): error is Fault {
  return error instanceof Fault && (code === undefined || error.code === code)
}

/** The message of anything thrown, without a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
