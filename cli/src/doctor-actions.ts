import { enrolmentPort } from '@holdfast/link'
import { ApiClient } from '@holdfast/link/api-client'
import type { Manifest } from '@holdfast/protocol'
import { manifestRoutes, nodeRoutes, statusRoutes } from '@holdfast/protocol'
import type { Context, Outcome } from './command.ts'
import { clientFrom, readSaved, unknownCoordinator } from './coordinator-place.ts'
import { type CoordinatorSeen, recoveryRules, serviceRules } from './doctor-coordinator.ts'
import { directRules } from './doctor-direct.ts'
import {
  type Attempt,
  type Diagnosis,
  diagnosis,
  examine,
  type Finding,
  isBroken,
} from './doctor-findings.ts'
import { fleetRules } from './doctor-fleet.ts'
import { networkRules } from './doctor-network.ts'
import { nodeRules } from './doctor-node.ts'
import { attempt, lookAt, tryEnrolment } from './doctor-reach.ts'
import { serverRules } from './doctor-servers.ts'
import { diagnosisOutcome } from './doctor-text.ts'
import { type FleetHere, fleetHere, startServer } from './fleet-here.ts'
import type { Input } from './input.ts'
import { LockedNode, lockedStateOf, peerUrl } from './node-locked.ts'
import { order } from './node-order.ts'
import { type Client, findNode, type Node } from './node-place.ts'
import { asFault, printError } from './output.ts'

// The doctor's rounds: gather what can be seen, from the bottom up, and hand it to the rules.

type Look = (input: Input, context: Context) => Promise<Diagnosis>

/** Exit code 1 is for a doctor that could not look at all. */
function doctor(look: Look): (input: Input, context: Context) => Promise<Outcome> {
  return async (input, context) => {
    try {
      return diagnosisOutcome(await look(input, context))
    } catch (error) {
      if (context.signal.aborted || asFault(error).kind === 'usage') throw error
      if (!context.json) await printError(error, 'holdfast doctor', context)
      return { json: { error: asFault(error) }, text: '', code: 1 }
    }
  }
}

/** `holdfast doctor coordinator` */
export const coordinatorAction = doctor(async (input, context) => {
  const seen = await coordinatorSeen(input, context)
  return diagnosis(`coordinator ${seen.url}`, seen.findings, seen.recovery)
})

/** `holdfast doctor` and `holdfast doctor fleet` */
export const fleetAction = doctor(async (input, context) => {
  const seen = await coordinatorSeen(input, context)
  if (isBroken(seen.findings)) return diagnosis(`fleet of ${seen.url}`, seen.findings)
  using client = await clientFrom(input, context)
  const { nodes } = await client.call(nodeRoutes.list)
  const fleet = { nodes, now: context.clock.now(), ...peersOf(seen.manifest), ...hereOf(seen) }
  const nodeFindings = examine(fleetRules, fleet)
  return diagnosis(`fleet of ${seen.url}`, below(seen), seen.recovery, nodeFindings)
})

/** `holdfast doctor node` */
export const nodeAction = doctor(async (input, context) => {
  const [name, at] = [input.word(0), input.text('at')]
  if (at !== undefined) return await lookDirectly(at, input, context)
  if (name === undefined) return await (await import('./doctor-here.ts')).lookHere(input, context)
  const seen = await coordinatorSeen(input, context)
  const subject = `node ${name}, seen from ${seen.url}`
  if (isBroken(seen.findings)) return diagnosis(subject, seen.findings)
  using client = await clientFrom(input, context)
  const node = await findNode(client, name)
  const { nodes } = await client.call(nodeRoutes.list)
  const asked = await ask(client, node, input, context)
  const now = context.clock.now()
  const facts = { node, nodes, now, ...peersOf(seen.manifest), ...hereOf(seen), ...asked }
  return diagnosis(subject, below(seen), examine(nodeRules, facts))
})

/** What nodes rest on: the coordinator, and in a local fleet the key servers. */
function below({ findings, here }: CoordinatorLook): readonly Finding[] {
  return here === undefined ? findings : [...findings, ...examine(serverRules, here)]
}

function hereOf({ here }: { here?: FleetHere | undefined }): { here?: FleetHere } {
  return here === undefined ? {} : { here }
}

function peersOf(manifest: Manifest | undefined): { genesisPeers?: number } {
  return manifest === undefined ? {} : { genesisPeers: manifest.genesis.peers }
}

interface CoordinatorLook {
  url: string
  /** What everything rests on. */
  findings: readonly Finding[]
  /** How it would stand on a bad day. */
  recovery: readonly Finding[]
  manifest?: Manifest
  /** The local fleet that the coordinator belongs to, if it is one of `holdfast up`. */
  here?: FleetHere
}

/** A coordinator from its name to its holders. @throws Fault cli.coordinator_unknown */
async function coordinatorSeen(input: Input, context: Context): Promise<CoordinatorLook> {
  const { signal } = context
  const saved = await readSaved(context)
  const url = (input.text('coordinator') ?? saved?.url)?.replace(/\/+$/, '')
  if (url === undefined) throw unknownCoordinator(context)
  const here = url === saved?.url ? await fleetHere(context) : undefined
  const pin = input.text('identity') ?? (saved?.url === url ? saved.identity : undefined)
  const starts =
    here === undefined
      ? 'holdfast coordinator serve --directory DIR'
      : startServer(here, here.processes?.coordinator?.name ?? 'coordinator-1')
  const options = { what: 'the coordinator', starts }
  const endpoint = await lookAt(url, { ...options, ...(pin === undefined ? {} : { pin }) }, signal)
  const network = examine(networkRules, endpoint)
  const place = here === undefined ? { url } : { url, here }
  if (isBroken(network) || endpoint.shown?.ok !== true)
    return { ...place, ...above({ url }, network) }
  // The token goes to the identity that gave it, and to no other.
  const token = endpoint.shown.value === saved?.identity ? { token: saved.token } : {}
  using client = new ApiClient({ url, identity: endpoint.shown.value, ...token }, signal)
  const status = await attempt(() => client.call(statusRoutes.status), signal)
  const current = await manifestIf(status, client, signal)
  const login: Attempt<true> | undefined =
    current?.ok === true ? { ok: true, value: true } : current
  const seen: CoordinatorSeen = {
    url,
    status,
    ...(login === undefined ? {} : { login }),
    ...hereOf({ here }),
  }
  return {
    ...place,
    ...above(seen, network),
    ...(current?.ok === true ? { manifest: current.value.manifest } : {}),
  }
}

function above(seen: CoordinatorSeen, below: readonly Finding[]) {
  const service = examine(serviceRules, seen, below)
  const findings = [...below, ...service]
  return { findings, recovery: examine(recoveryRules, seen, findings) }
}

/** Reading the manifest is also how it is found out whether somebody is logged in. */
async function manifestIf(status: CoordinatorSeen['status'], client: Client, signal: AbortSignal) {
  if (status?.ok !== true || status.value.state !== 'running') return undefined
  return await attempt(() => client.call(manifestRoutes.get), signal)
}

/** Seconds that a node gets to answer the doctor. */
const answerWithin = 20

/** What the node says now, and, when it is open, what a rehearsal shows. */
async function ask(client: Client, node: Node, input: Input, context: Context) {
  if (!node.connected) return {}
  const quiet: Context = { ...context, json: true }
  const limits = { waits: true, seconds: answerWithin }
  const status = await attempt(
    () => order(client, node, { kind: 'status' }, limits, quiet),
    context.signal,
  )
  if (!status.ok) return { report: status }
  if (!status.value.ended) return {}
  const { report } = status.value.data
  const locked = report.phase === 'locked' ? await lockedStateOf(node, context) : undefined
  const told = {
    report: { ok: true as const, value: report },
    ...(locked === undefined ? {} : { locked }),
  }
  if (input.flag('quick') || report.phase !== 'open') return told
  const rehearsal = await attempt(async () => {
    const followed = await order(
      client,
      node,
      { kind: 'rehearse' },
      { ...limits, seconds: 120 },
      quiet,
    )
    if (followed.ended) return followed.data
    throw new Error('the rehearsal waits for somebody')
  }, context.signal)
  return { ...told, rehearsal }
}

/** A node without a coordinator in between. */
async function lookDirectly(at: string, input: Input, context: Context): Promise<Diagnosis> {
  const { signal } = context
  const url = peerUrl(at)
  const { hostname, host } = new URL(url)
  const pin = input.text('pin')
  const options = { what: 'the node', starts: 'holdfast agent serve --device DEVICE' }
  const endpoint = await lookAt(url, { ...options, ...(pin === undefined ? {} : { pin }) }, signal)
  const subject = `node at ${host}`
  const { tcp, shown } = endpoint
  if (tcp === undefined) return diagnosis(subject, examine(networkRules, endpoint))
  const enrolled: Attempt<true> = shown?.ok === true ? { ok: true, value: true } : (shown ?? tcp)
  const asked = await enrolmentSeen(hostname, endpoint.port, enrolled.ok, signal)
  const seen = { at: host, host: hostname, peer: enrolled, ...asked }
  // Which of its two ports answers says more than that one of them does not.
  if (shown?.ok !== true && (!tcp.ok || asked.enrolment.ok)) {
    const name = examine(networkRules.slice(0, 1), endpoint)
    return diagnosis(subject, name, examine(directRules, seen))
  }
  const below = examine(networkRules, endpoint)
  if (isBroken(below) || shown?.ok !== true)
    return diagnosis(subject, below, examine(directRules, seen, below))
  using node = await LockedNode.connect(at, shown.value, context)
  const state = await attempt(() => node.state(), signal)
  return diagnosis(subject, below, examine(directRules, { ...seen, state }, below))
}

/** The usual enrolment port; and the given one, when nothing enrolled answers there. */
async function enrolmentSeen(
  host: string,
  given: number,
  enrolled: boolean,
  signal: AbortSignal,
): Promise<{ enrolment: Attempt<true>; enrolmentAt: string }> {
  const ports = enrolled ? [enrolmentPort] : [...new Set([given, enrolmentPort])]
  const tried = await Promise.all(
    ports.map(async (port) => ({
      enrolment: await tryEnrolment(host, port, signal),
      enrolmentAt: `${host}:${port}`,
    })),
  )
  const [first] = tried
  const found = tried.find(({ enrolment }) => enrolment.ok) ?? first
  if (found === undefined) throw new Error('there is at least the usual port')
  return found
}
