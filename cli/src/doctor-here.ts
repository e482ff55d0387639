import { join } from 'node:path'
import {
  countReleases,
  inspectNodeDirectory,
  type LifeState,
  type NodeInspection,
  releaseLogName,
} from '@holdfast/agent'
import { createPins } from '@holdfast/seal'
import { listVault, luksType } from '@holdfast/vault'
import { agentProcesses } from './agent-processes.ts'
import type { Context } from './command.ts'
import { type Attempt, type Diagnosis, diagnosis, examine } from './doctor-findings.ts'
import { type LocalSeen, localRules, type Reach } from './doctor-local.ts'
import { attempt, tryPort } from './doctor-reach.ts'
import { serverRules } from './doctor-servers.ts'
import { fleetOfNode } from './fleet-here.ts'
import type { Input } from './input.ts'

// The machine that the doctor runs on: a node's console. It only looks: the directory is read without
// its lock, and the volume's header is listed and not opened.

/** `holdfast doctor node` on the node itself. */
export async function lookHere(input: Input, context: Context): Promise<Diagnosis> {
  const { inspection, directory, elsewhere, device: used } = await nodeHere(input, context)
  const { state } = inspection
  const device = input.text('device') ?? used
  const [here, volume, coordinators, guardians] = await Promise.all([
    fleetOfNode(directory, context),
    device === undefined ? undefined : volumeAt(device, directory, context),
    reachAll(
      (state?.enrolment?.coordinators ?? []).map((url) => ({ who: url, urls: [url] })),
      context,
    ),
    reachAll(guardiansOf(state), context),
  ])
  // After the others: it takes the processor for seconds, and they wait for answers.
  const quick = input.flag('quick') || isEmpty(inspection)
  const log = join(directory, releaseLogName)
  const releases = quick ? undefined : await attempt(() => countReleases(log), context.signal)
  const seen: LocalSeen = {
    directory,
    ...facts(inspection),
    coordinators,
    guardians,
    elsewhere,
    ...(volume === undefined ? {} : { volume }),
    ...(here === undefined ? {} : { here }),
    ...(releases === undefined ? {} : { releases }),
  }
  const below = here === undefined ? [] : examine(serverRules, here.fleet)
  return diagnosis(`node in ${directory}`, below, examine(localRules, seen))
}

interface NodeHere {
  inspection: NodeInspection
  directory: string
  /** Of the agent that runs. */
  device?: string
  /** Where agents of this machine keep their files, when it is not clear which of them is meant. */
  elsewhere: readonly string[]
}

/**
 * The node that is meant: in the directory given, else in the usual one, else where the one agent that
 * runs on this machine keeps its files.
 */
async function nodeHere(
  input: Input,
  { settings: { stateDirectory, tcti } }: Context,
): Promise<NodeHere> {
  const given = input.text('directory')
  const directory = given ?? stateDirectory
  const inspection = await inspectNodeDirectory(directory, tcti)
  if (given !== undefined || !isEmpty(inspection)) return { inspection, directory, elsewhere: [] }
  const agents = await agentProcesses()
  const [only, ...others] = agents
  if (only === undefined || others.length > 0)
    return { inspection, directory, elsewhere: agents.map((agent) => agent.directory) }
  return { inspection: await inspectNodeDirectory(only.directory, tcti), ...only, elsewhere: [] }
}

function isEmpty({ keys, copies }: NodeInspection): boolean {
  const blank = copies.every((copy) => copy.version === undefined && copy.problem === undefined)
  return keys === 'absent' && blank
}

function facts({ keys, copies, running, state }: NodeInspection) {
  return { keys, copies, running, ...(state === undefined ? {} : { life: lifeOf(state) }) }
}

function lifeOf({ phase, task, lastErrors, genesis, set, held, enrolment }: LifeState) {
  return {
    phase,
    genesis,
    // The newest first, as everywhere people read them.
    lastErrors: lastErrors.toReversed(),
    threshold: set?.threshold ?? 0,
    ...(task === undefined ? {} : { task: `${task.kind}:${task.step}` }),
    ...(held === undefined ? {} : { held }),
    ...(enrolment === undefined ? {} : { name: enrolment.name }),
  }
}

function guardiansOf(state: LifeState | undefined): { who: string; urls: readonly string[] }[] {
  const guardians = state?.set?.guardians ?? []
  return guardians.map(({ node, addresses }) => ({ who: node.slice(0, 12), urls: addresses }))
}

/** Whether each can be connected to at one of its addresses. */
async function reachAll(
  places: readonly { who: string; urls: readonly string[] }[],
  { signal }: Context,
): Promise<Reach[]> {
  return await Promise.all(
    places.map(async ({ who, urls }) => {
      const tried = await Promise.all(urls.map((url) => reach(who, url, signal)))
      const missing: Reach = {
        who,
        address: '?',
        tcp: { ok: false, code: 'none', message: 'no address' },
      }
      return tried.find(({ tcp }) => tcp.ok) ?? tried[0] ?? missing
    }),
  )
}

async function reach(who: string, url: string, signal: AbortSignal): Promise<Reach> {
  const place = URL.parse(url.includes('://') ? url : `https://${url}`)
  if (place === null)
    return { who, address: url, tcp: { ok: false, code: 'address', message: 'not an address' } }
  const port = Number(place.port === '' ? 443 : place.port)
  const tcp = await tryPort(place.hostname, port, signal)
  return { who, address: `${place.hostname}:${port}`, tcp }
}

async function volumeAt(
  device: string,
  stateDirectory: string,
  { signal, settings, clock }: Context,
): Promise<NonNullable<LocalSeen['volume']>> {
  const looked: Attempt<{ type: 'luks2' | 'luks1' | 'none'; ways: Way[] }> = await attempt(
    async () => {
      const type = (await luksType({ device })) ?? 'none'
      if (type !== 'luks2') return { type, ways: [] }
      const deps = { pins: createPins(), stateDirectory, clock, actor: settings.actor }
      const { slots } = await listVault(deps, { device })
      const ways = slots.map(({ keyslot, purpose, label = '' }) => ({ keyslot, purpose, label }))
      return { type, ways }
    },
    signal,
  )
  return looked.ok ? { ok: true, value: { device, ...looked.value } } : looked
}

type Way = { keyslot: number; purpose: string; label: string }
