import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Settings } from './command.ts'
import type { Input } from './input.ts'

/**
 * Where a command keeps what it remembers: as --state-dir says, else the local fleet's own state when
 * it is typed in the fleet's directory, else where the environment says. So nobody has to log in to the
 * coordinator of the fleet, and a login to a real one is neither used nor overwritten there.
 */
export function stateDirectoryOf(input: Input, settings: Settings): string {
  const given = input.text('state-dir')
  if (given !== undefined) return given
  const fleet = fleetOf(settings)
  return fleet !== undefined && `${workingDirectory()}/`.startsWith(`${fleet}/`)
    ? join(fleet, 'state')
    : settings.stateDirectory
}

/** The directory of the local fleet in its usual place, when there is one. */
export function fleetOf(settings: Settings): string | undefined {
  const fleet = join(settings.runtimeDirectory, 'fleet')
  return existsSync(join(fleet, 'state')) ? fleet : undefined
}

/** The working directory, or nothing when it was removed. */
function workingDirectory(): string {
  try {
    return process.cwd()
  } catch {
    return ''
  }
}
