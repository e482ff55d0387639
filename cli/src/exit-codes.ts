import { Fault, type FaultKind } from '@holdfast/base'

/** One row of the table that `holdfast help exit-codes` and the operator guide print. */
export interface ExitCode {
  code: number
  name: string
  meaning: string
}

/**
 * The exit codes, which stay as they are: scripts depend on them. A command that failed exits with
 * the code of its fault's kind; 130 and 143 are the shell's own numbers for SIGINT and SIGTERM.
 */
export const exitCodes = [
  { code: 0, name: 'ok', meaning: 'done; for a rehearsal: every secret asked about would open' },
  { code: 1, name: 'internal', meaning: 'a defect of Holdfast or of a program it runs' },
  { code: 2, name: 'usage', meaning: 'the command line cannot be understood' },
  { code: 3, name: 'invalid', meaning: 'data from outside is malformed' },
  { code: 4, name: 'refused', meaning: 'a rule forbids it; nothing was changed' },
  { code: 5, name: 'unavailable', meaning: 'something did not answer; trying again may help' },
  {
    code: 6,
    name: 'integrity',
    meaning: 'data is tampered with, foreign, stale, or a key is wrong',
  },
  { code: 7, name: 'absent', meaning: 'a file, keyslot, key, program or device is not there' },
  { code: 8, name: 'busy', meaning: 'another command holds it' },
  { code: 130, name: 'interrupted', meaning: 'stopped by Ctrl-C' },
  { code: 143, name: 'terminated', meaning: 'stopped by SIGTERM' },
] as const satisfies readonly ExitCode[]

/** The exit code of a kind of fault. */
export function exitCodeOfKind(kind: FaultKind): number {
  return exitCodes.find(({ name }) => name === kind)?.code ?? 1
}

/** The exit code for anything thrown. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof Fault)) return 1
  return error.code === 'cli.interrupted' ? 130 : exitCodeOfKind(error.kind)
}
