import { createServer, request } from 'node:http'
import { join } from 'node:path'
import { isObject, parseJson } from '@holdfast/base'
import type { FleetRehearsal, FleetStatus, LocalFleet } from '@holdfast/drills'
import { cliFault } from './faults.ts'
import { asFault } from './output.ts'

// How a second terminal talks to a running `holdfast up`: POST /status, /stop/NAME and /start/NAME
// over a Unix socket in the fleet's directory, which only its owner may enter.

/** What `holdfast up status` shows. */
export interface FleetReport {
  directory: string
  pid: number
  status: FleetStatus
  rehearsal: FleetRehearsal | undefined
}

const socketName = 'control.sock'

/** Serves the control socket until disposed of. */
export async function serveControl(
  fleet: LocalFleet,
  last: () => FleetRehearsal | undefined,
): Promise<AsyncDisposable> {
  const server = createServer((incoming, response) => {
    const send = (code: number, value: unknown) => {
      response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    obey(fleet, incoming.url ?? '', last).then(
      (report) => send(200, report),
      (error) => send(409, asFault(error)),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(join(fleet.directory, socketName), resolve)
  })
  return {
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function obey(
  fleet: LocalFleet,
  url: string,
  last: () => FleetRehearsal | undefined,
): Promise<FleetReport> {
  const [, order = '', name = ''] = url.split('/')
  if (order !== 'status') {
    const server = fleet.servers.find((candidate) => candidate.name === name)
    if (server === undefined) {
      const names = fleet.servers.map((candidate) => candidate.name).join(', ')
      throw cliFault('cli.fleet_absent', `there is no server "${name}" in this fleet`, {
        hint: `its servers: ${names}`,
      })
    }
    if (order === 'stop') await server.stop()
    else if (order === 'start') await server.start()
  }
  const { directory } = fleet
  return { directory, pid: process.pid, status: await fleet.status(), rehearsal: last() }
}

/**
 * Asks the fleet that runs in a directory.
 * @param order `status`, `stop/NAME` or `start/NAME`
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
