import { createServer, request } from 'node:http'
import { join } from 'node:path'
import { isObject, parseJson, systemClock } from '@holdfast/base'
import type { ControlPlaneState, FleetRehearsal, FleetStatus, WholeFleet } from '@holdfast/drills'
import { cliFault } from './faults.ts'
import { asItStands } from './fleet-now.ts'
import { asFault } from './output.ts'

// How a second terminal talks to a running `holdfast up`: POST /status, /stop/NAME and /start/NAME
// for key servers and the coordinator, /kill-node/NAME and /start-node/NAME, over a Unix socket in the
// fleet's directory, which only its owner may enter.

/** What `holdfast up status` shows. */
export interface FleetReport {
  directory: string
  pid: number
  status: FleetStatus
  rehearsal: FleetRehearsal | undefined
  /** The coordinator and the nodes; undefined in a fleet without nodes. */
  control: ControlPlaneState | undefined
  /** What came of the order, for a person; undefined when nothing was ordered. */
  did?: string
}

/** What is told when somebody has asked for something. */
export interface ControlDeps {
  fleet: WholeFleet
  lastRehearsal: () => FleetRehearsal | undefined
  /** A process was started or ended. */
  onChange: () => Promise<void>
}

const socketName = 'control.sock'

/** Serves the control socket until disposed of. */
export async function serveControl(deps: ControlDeps): Promise<AsyncDisposable> {
  const server = createServer((incoming, response) => {
    const send = (code: number, value: unknown) => {
      response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    obey(deps, incoming.url ?? '').then(
      (report) => send(200, report),
      (error) => send(409, asFault(error)),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(join(deps.fleet.local.directory, socketName), resolve)
  })
  return {
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function obey(deps: ControlDeps, url: string): Promise<FleetReport> {
  const [, order = '', name = ''] = url.split('/')
  const { fleet, lastRehearsal, onChange } = deps
  const did = await carryOut(fleet, order, decodeURIComponent(name))
  if (did !== undefined) await onChange()
  const { local } = fleet
  const [status, control] = await Promise.all([local.status(), fleet.look()])
  const { directory } = local
  const last = lastRehearsal()
  const rehearsal = last === undefined ? undefined : asItStands(last, status, systemClock.now())
  const report = { directory, pid: process.pid, status, rehearsal, control }
  return did === undefined ? report : { ...report, did }
}

async function carryOut(
  { local, plane }: WholeFleet,
  order: string,
  name: string,
): Promise<string | undefined> {
  if (order === 'kill-node' || order === 'start-node') {
    const node = memberNamed(plane?.nodes ?? [], name, 'node')
    const ran = node.pid !== undefined
    if (order === 'kill-node') await node.cutPower()
    else await node.start()
    if (order === 'kill-node') return ran ? `${name} is off` : `${name} was off already`
    return ran ? `${name} had power already` : `${name} has power; its guardians open it`
  }
  const coordinator = plane === undefined ? [] : [plane.coordinator]
  const members = [...local.servers, ...coordinator]
  if (order !== 'stop' && order !== 'start') return undefined
  const member = memberNamed(members, name, 'server')
  const ran = member.pid !== undefined
  if (order === 'stop') await member.stop()
  else await member.start()
  if (order === 'stop') return ran ? `${name} is stopped` : `${name} was stopped already`
  return ran ? `${name} ran already` : `${name} runs`
}

/** @throws Fault cli.fleet_absent naming those that there are */
function memberNamed<T extends { name: string }>(
  members: readonly T[],
  name: string,
  what: string,
): T {
  const member = members.find((candidate) => candidate.name === name)
  if (member !== undefined) return member
  const names = members
    .map((candidate) => candidate.name)
    .sort()
    .join(', ')
  throw cliFault('cli.fleet_absent', `there is no ${what} "${name}" in this fleet`, {
    hint: names === '' ? `it has no ${what}s: holdfast up --nodes 6` : `its ${what}s: ${names}`,
  })
}

/**
 * Asks the fleet that runs in a directory.
 * @param order `status`, `stop/NAME`, `start/NAME`, `kill-node/NAME` or `start-node/NAME`
 * @throws Fault cli.fleet_absent
 */
export function askFleet(directory: string, order: string): Promise<FleetReport> {
  const socketPath = join(directory, socketName)
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path: `/${order}`, method: 'POST' }, (incoming) => {
      const chunks: Buffer[] = []
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
      incoming.on('error', reject)
      incoming.on('end', () => {
        const value = parseJson(Buffer.concat(chunks).toString('utf8'), 'the reply')
        if (incoming.statusCode === 200)
          resolve(value as FleetReport) // our own other end
        else reject(refusal(value))
      })
    })
    outgoing.on('error', (cause) => {
      const text = `no local fleet is running in ${directory}`
      reject(
        cliFault('cli.fleet_absent', text, {
          cause,
          hint: 'start one and wait for its table: holdfast up',
        }),
      )
    })
    outgoing.end()
  })
}

function refusal(value: unknown): Error {
  const { message, hint } = isObject(value) ? value : { message: 'it gave no reason', hint: '' }
  return cliFault('cli.fleet_absent', String(message), {
    ...(typeof hint === 'string' && hint !== '' ? { hint } : {}),
  })
}
