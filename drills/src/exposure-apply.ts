import { isFault, type JsonObject } from '@holdfast/base'
import type { Administration } from '@holdfast/keyserver'
import { mapPins, type Policy } from '@holdfast/seal'
import {
  listVault,
  rehearseVault,
  rekeyFleet,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import {
  boundTo,
  type ExposedServer,
  type ExposedVolume,
  type ExposurePlan,
  planExposure,
  type Unreached,
} from './exposure.ts'
import { drillsFault } from './faults.ts'

// Carries the plan of exposure.ts out. Everything can be run again under the same id: which keys were
// meant is marked at the servers before anything else, finished volumes are remembered by their
// rekey. The new signing keys are read at the servers themselves: a signature by an exposed key
// proves nothing any more, so trust is not carried over by it.

export interface ExposureWork {
  /** Names this incident: running it again under the same name goes on where it stopped. */
  id: string
  /** Why, for the servers' records. */
  note: string
  /** `url` is the address that bindings name. */
  servers: readonly { name: string; url: string; administration: Administration }[]
  volumes: readonly {
    name: string
    volume: VolumeRef
    /** Its ways in as last seen, for a volume that cannot be read now. */
    lastKnown?: ExposedVolume['ways']
  }[]
  vault: VaultDeps
  /** Destroy the keys although volumes that cannot be reached lose their last automatic way. */
  strand?: boolean
  signal?: AbortSignal
  onEvent?: (step: string, facts: JsonObject) => void
}

export interface ExposureReport {
  plan: ExposurePlan
  /** Names of volumes that were moved and have been seen to open without the exposed keys. */
  verified: readonly string[]
  /** Volumes that are still bound to destroyed keys: rekey them as soon as they can be reached. */
  unreached: readonly Unreached[]
  destroyed: readonly string[]
}

/** The plan that `respondToExposure` would carry out now; nothing is changed. */
export async function exposurePlanOf(work: ExposureWork): Promise<ExposurePlan> {
  const servers = await Promise.all(work.servers.map((server) => exposedKeys(server, work.id)))
  return planExposure(servers, await readVolumes(work))
}

/**
 * Answers an exposure of the servers' keys: marks, rotates, rekeys, verifies, destroys.
 * @throws Fault drills.destruction_refused when a volume that cannot be reached would lose its last
 *   automatic way; everything before the destruction is done then, and the old keys still answer
 */
export async function respondToExposure(work: ExposureWork): Promise<ExposureReport> {
  const tell = work.onEvent ?? (() => undefined)
  const servers = await Promise.all(work.servers.map((server) => exposedKeys(server, work.id)))
  const volumes = await readVolumes(work)
  const plan = planExposure(servers, volumes)
  tell('the plan is made', {
    steps: plan.steps.length,
    unreached: plan.unreached.map(({ volume }) => volume),
    unaffected: plan.unaffected,
  })
  await markAndRotate(work, plan, tell)
  await rekeyAll(work, plan, exposedIn(servers), tell)
  const { verified, left } = await verifyAll(work, plan, exposedIn(servers))
  tell('volumes that hold no exposed key open', { verified, left })
  // What could not be rekeyed after all is in the same case as what could not be reached.
  const failed = volumes.map((one) =>
    left.includes(one.name) ? { ...one, reachable: false } : one,
  )
  const { unreached, stranded } = planExposure(servers, failed)
  if (stranded.length > 0 && work.strand !== true) throw strands(stranded)
  const destroyed = await destroyAll(work, plan)
  tell('the exposed keys are destroyed', { destroyed })
  return { plan, verified, unreached, destroyed }
}

function exposedIn(servers: readonly ExposedServer[]): string[] {
  return servers.flatMap(({ keys }) => keys.map(({ kid }) => kid))
}

/** The keys that this incident is about: those it marked, or all there are when it is new. */
async function exposedKeys(
  { name, administration }: ExposureWork['servers'][number],
  id: string,
): Promise<ExposedServer> {
  const { keys } = await administration.list()
  const marked = keys.filter(({ compromised }) => compromised?.note.startsWith(`${id}: `))
  const exposed = marked.length > 0 ? marked : keys.filter(({ state }) => state !== 'retired')
  return {
    name,
    keys: exposed.map(({ kid, prefix, state }) => {
      return { kid, prefix, state, marked: marked.length > 0 }
    }),
  }
}

async function readVolumes({ volumes, vault }: ExposureWork): Promise<ExposedVolume[]> {
  return await Promise.all(
    volumes.map(async ({ name, volume, lastKnown = [] }): Promise<ExposedVolume> => {
      try {
        return { name, reachable: true, ways: await waysOf(vault, volume) }
      } catch (error) {
        if (!isFault(error)) throw error
        return { name, reachable: false, ways: lastKnown }
      }
    }),
  )
}

/** A volume's ways in as the plan needs them; keep them to know a volume that is away later. */
export async function waysOf(vault: VaultDeps, volume: VolumeRef): Promise<ExposedVolume['ways']> {
  const { slots } = await listVault(vault, volume)
  return slots.map(({ keyslot, purpose, inspection }) => {
    return { keyslot, purpose, ...(inspection === undefined ? {} : { inspection }) }
  })
}

async function markAndRotate(
  work: ExposureWork,
  { steps }: ExposurePlan,
  tell: NonNullable<ExposureWork['onEvent']>,
): Promise<void> {
  for (const step of steps) {
    work.signal?.throwIfAborted()
    if (step.do === 'mark_compromised') {
      const { administration } = serverOf(work, step.server)
      await administration.markCompromised(step.keys, `${work.id}: ${work.note}`)
      tell('keys are marked as compromised', { server: step.server, keys: step.keys })
    }
    if (step.do === 'rotate') {
      const { server, prefix } = step
      const { administration } = serverOf(work, server)
      const { created } = await administration.rotate(prefix === '' ? {} : { prefix })
      tell('keys are rotated', { server, prefix, created: created.map(({ kid }) => kid) })
    }
  }
}

async function rekeyAll(
  work: ExposureWork,
  { steps }: ExposurePlan,
  exposed: readonly string[],
  tell: NonNullable<ExposureWork['onEvent']>,
): Promise<void> {
  const names = new Set(steps.flatMap((step) => (step.do === 'rekey' ? [step.volume] : [])))
  if (names.size === 0) return
  const volumes = work.volumes.filter(({ name }) => names.has(name))
  const result = await rekeyFleet(work.vault, {
    id: work.id,
    volumes: volumes.map(({ volume }) => volume),
    affected: exposed,
    change: await toNewKeys(work),
    ...(work.signal === undefined ? {} : { signal: work.signal }),
  })
  tell('volumes are rekeyed', {
    rekeyed: result.rekeyed.map(({ device, keyslots }) => ({ device, keyslots })),
    failed: result.failed.map(({ device, fault }) => ({ device, ...fault.toJSON() })),
  })
}

/**
 * Pins every policy to the signing keys that the servers have now. Prefixes of a server are signed for
 * by the same keys.
 */
async function toNewKeys({ servers }: ExposureWork): Promise<(policy: Policy) => Policy> {
  const trusted: { base: string; thp: string }[] = []
  for (const { url, administration } of servers) {
    const { keys } = await administration.list()
    const signing = keys.find(({ use, state }) => use === 'signing' && state === 'advertised')
    if (signing !== undefined) trusted.push({ base: url.replace(/\/+$/, ''), thp: signing.kid })
  }
  return (policy) =>
    mapPins(policy, (pin) => {
      const url = String(pin.config.url)
      const found = trusted.find(
        ({ base }) => url.replace(/\/+$/, '') === base || url.startsWith(`${base}/p/`),
      )
      if (pin.pin !== 'tang' || found === undefined) return pin
      return { ...pin, config: { url, thp: found.thp } }
    })
}

/** Which rekeyed volumes hold no exposed key any more and have all of that proven live. */
async function verifyAll(
  { volumes, vault, signal }: ExposureWork,
  { steps }: ExposurePlan,
  exposed: readonly string[],
): Promise<{ verified: string[]; left: string[] }> {
  const names = steps.flatMap((step) => (step.do === 'verify' ? [step.volume] : []))
  const [verified, left]: [string[], string[]] = [[], []]
  for (const { name, volume } of volumes.filter((one) => names.includes(one.name))) {
    const ways = await waysOf(vault, volume)
    const free = boundTo({ name, reachable: true, ways }, new Set(exposed)).length === 0
    const options = { people: false, ...(signal === undefined ? {} : { signal }) }
    const rehearsed = await rehearseVault(vault, volume, options)
    const opens = rehearsed.ways.some(
      ({ purpose, proof }) => purpose === 'automatic' && proof.state === 'proven',
    )
    if (free && opens) verified.push(name)
    else left.push(name)
  }
  return { verified, left }
}

async function destroyAll(work: ExposureWork, { steps }: ExposurePlan): Promise<string[]> {
  const destroyed: string[] = []
  for (const step of steps) {
    if (step.do !== 'destroy') continue
    const { administration } = serverOf(work, step.server)
    const { destroy } = await administration.retire({ kids: step.keys, force: true })
    destroyed.push(...destroy)
  }
  return destroyed
}

function serverOf({ servers }: ExposureWork, name: string): ExposureWork['servers'][number] {
  const found = servers.find((server) => server.name === name)
  if (found === undefined) throw new Error(`the plan names ${name}, which it was not made from`)
  return found
}

function strands(stranded: readonly string[]): Error {
  return drillsFault(
    'drills.destruction_refused',
    `the exposed keys stay: without them ${stranded.join(', ')} would have no automatic way left`,
    {
      hint: 'reach these volumes and run the same command again, or accept that people must open them: --strand',
      details: { stranded },
    },
  )
}
