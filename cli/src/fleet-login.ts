import { join } from 'node:path'
import { ensureDirectory, writeDurable } from '@holdfast/base'
import type { ControlPlane } from '@holdfast/drills'
import { loginFileName } from './coordinator-place.ts'

/**
 * Writes the owner's login into the fleet's state directory, readable by its user alone. Commands
 * typed in the fleet's directory use that state directory, so nobody has to log in, and a login to a
 * real coordinator is neither used nor overwritten.
 */
export async function saveFleetLogin(directory: string, { login }: ControlPlane): Promise<void> {
  const state = join(directory, 'state')
  await ensureDirectory(state)
  await writeDurable(join(state, loginFileName), `${JSON.stringify(login)}\n`, { mode: 0o600 })
}
