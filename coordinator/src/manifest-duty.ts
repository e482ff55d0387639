import { type Clock, isFault } from '@holdfast/base'
import type { Agents } from './agents.ts'
import type { Coordinator } from './coordinator.ts'
import { currentManifest, manifestVersion } from './manifests.ts'
import { publishManifest } from './nodes-routes.ts'
import type { RateLimits } from './rate-limits.ts'

// What follows from a manifest that came into force, on whichever instance: the limits of this one's
// API, and the signed excerpt that agents act on. It is looked for, not announced, so nothing is lost
// when the instance that enacted it dies in the next moment.

export interface ManifestDutyOptions {
  coordinator: Coordinator
  agents: Agents
  limits: RateLimits
  clock: Clock
  /** The limits were given when this instance was started, and the manifest's do not count. */
  fixed: boolean
  onError: (error: unknown) => void
}

const interval = 1_000
/** Strangers' part of what an address may ask. */
const openPart = 5

/** Follows the manifest until disposed. */
export function followManifest(options: ManifestDutyOptions): AsyncDisposable {
  const stop = new AbortController()
  const loop = follow(options, stop.signal)
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await loop
    },
  }
}

async function follow(options: ManifestDutyOptions, signal: AbortSignal): Promise<void> {
  const { coordinator, clock, onError } = options
  let done = ''
  while (!signal.aborted) {
    try {
      if (coordinator.state === 'running') done = await look(options, done)
      else done = '' // what it is when it runs again may be another cluster's, or restored
    } catch (error) {
      // A coordinator that is sealed in this very moment is looked at again.
      if (!isFault(error, 'coordinator.data_key_sealed')) onError(error)
    }
    await clock.sleep(interval, signal).catch(() => undefined)
  }
}

/**
 * Returns what has been dealt with: the state's header, because every cluster begins with version 1 and
 * because new holders count once their shares are proven, and the manifest's version.
 */
async function look(options: ManifestDutyOptions, done: string): Promise<string> {
  const { coordinator, agents, limits, fixed } = options
  const { headerDigest } = coordinator
  if (`${headerDigest} ${await manifestVersion(coordinator)}` === done) return done
  const current = await currentManifest(coordinator)
  if (current === undefined) return ''
  const { requestsPerMinute, loginsPerMinute } = current.manifest.limits
  if (!fixed)
    limits.adjust({
      all: requestsPerMinute,
      open: Math.ceil(requestsPerMinute / openPart),
      logins: loginsPerMinute,
    })
  await publishManifest(coordinator, agents)
  return `${headerDigest} ${current.version}`
}
