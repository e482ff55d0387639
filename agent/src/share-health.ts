import { isFault, messageOf, runningTimeout } from '@holdfast/base'
import { parseEcPublicJwk } from '@holdfast/crypto'
import type { GuardianSet } from './life-state.ts'
import { probePeer, type WardIdentity } from './peer-client.ts'

/** How one guardian's share stands, without a release. */
export interface ShareHealth {
  guardian: string
  healthy: boolean
  code?: string
  message?: string
}

/**
 * Asks every guardian at once to prove that it still has its key.
 * @param within milliseconds for each, as `afterRunning` counts them
 */
export async function probeGuardians(
  ward: WardIdentity,
  { guardians, epoch }: GuardianSet,
  within = 10_000,
): Promise<ShareHealth[]> {
  return await Promise.all(
    guardians.map(async ({ node: guardian, addresses, key }) => {
      try {
        const place = { guardian, addresses, epoch, key: parseEcPublicJwk(key, 'the key') }
        const silent = new Error(`no answer within ${within} ms`)
        using late = runningTimeout(within, silent)
        await probePeer(ward, place, late.signal)
        return { guardian, healthy: true }
      } catch (error) {
        const code = isFault(error) ? error.code : 'agent.guardian_unreachable'
        return { guardian, healthy: false, code, message: messageOf(error) }
      }
    }),
  )
}
