/** What every bench is given. */
export interface BenchContext {
  readonly rounds: number
  /** Length of one counted stretch of load, per server and round. */
  readonly seconds: number
  /** Another size than the usual ones for the benches of whole fleets. */
  readonly agents: number | undefined
  /** A tangd with fork mode, when it is not the installed one. */
  readonly tangdFork: string | undefined
  /** Whether the named result was asked for. */
  selects(name: string): boolean
  /** A new private folder, removed at the end. */
  folder(): Promise<string>
  /** Says what is being measured now. */
  progress(what: string): void
}
