import { startWholeFleet, stepsOf, type WholeFleet } from '@holdfast/drills'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { askFleet, serveControl } from './fleet-control.ts'
import { saveFleetLogin } from './fleet-login.ts'
import { fleetDirectory, markPlace, takePlace } from './fleet-place.ts'
import { fleetReport, fleetText } from './fleet-report.ts'
import type { Input } from './input.ts'
import { upHints } from './up-hints.ts'
import { upProgress } from './up-progress.ts'
import { type Seen, watchFleet } from './up-watch.ts'

const mostNodes = 20

/** `holdfast up` */
export async function upAction(input: Input, context: Context): Promise<Outcome | undefined> {
  const interval = (input.count('interval', 1, 3600) ?? 5) * 1000
  const nodes = nodesOf(input)
  const directory = fleetDirectory(context.settings, input.text('directory'))
  const began = context.clock.now()
  await using _place = await takePlace(directory)
  await using fleet = await start(directory, nodes, context)
  const seconds = (context.clock.now() - began) / 1000
  if (fleet.plane !== undefined) await saveFleetLogin(directory, fleet.plane)
  const onChange = () => markPlace(fleet)
  await onChange()
  const seen: Seen = {
    rehearsal: await fleet.local.rehearse(context.signal),
    control: await fleet.look(),
  }
  const deps = { fleet, onChange, lastRehearsal: () => seen.rehearsal }
  await using _control = await serveControl(deps)
  const ready = seen.rehearsal.ways.every(({ state }) => state === 'proven')
  const report = { ready, seconds, ...facts(fleet), ...seen }
  if (input.flag('exit-when-ready')) {
    const text = await fleetText(
      { ...seen, status: await fleet.local.status() },
      context.clock.now(),
    )
    return { json: report, text, ...(ready ? {} : { kind: 'unavailable' as const }) }
  }
  const { json, streams, settings } = context
  const hints = () => upHints(fleet, settings, input.has('directory'), seconds)
  const shown = json ? JSON.stringify(report) : hints()
  await streams.out(`${shown}\n`)
  await watchFleet(fleet, seen, interval, context)
  return undefined
}

/** None, or enough that some can guard another. */
function nodesOf(input: Input): number {
  const count = input.count('nodes', 0, mostNodes) ?? 6
  if (count === 0 || count > 2) return count
  throw cliFault('cli.usage', `${count} nodes cannot guard each other`, {
    hint: 'give 0, or 3 and more: holdfast up --nodes 3',
  })
}

async function start(directory: string, nodes: number, context: Context): Promise<WholeFleet> {
  const { program } = context.settings
  const command = (...words: string[]) => ({
    program: process.execPath,
    args: [program, ...words, '--json'],
  })
  const programs = {
    keyserver: command('keyserver', 'serve'),
    coordinator: command('coordinator', 'serve'),
    agent: command('agent', 'serve'),
  }
  using progress = await upProgress(context, stepsOf(nodes))
  const onProgress = progress.show
  return await startWholeFleet({ directory, programs, nodes, onProgress }, context.signal)
}

function facts({ local, plane }: WholeFleet) {
  const { directory, servers, holders, volume } = local
  const { coordinator } = plane ?? {}
  return {
    directory,
    pid: process.pid,
    servers: servers.map(({ name, url, pid, socket }) => ({ name, url, pid, socket })),
    holders: holders.map(({ name, privateKeyPath }) => ({ name, privateKeyPath })),
    volume: { device: volume.device, stateDirectory: volume.stateDirectory },
    ...(coordinator === undefined
      ? {}
      : {
          coordinator: {
            ...{ name: coordinator.name, url: coordinator.url },
            ...{ identity: coordinator.identity, pid: coordinator.pid },
          },
        }),
    nodes: (plane?.nodes ?? []).map(({ name, node, pid, device }) => ({ name, node, pid, device })),
  }
}

/** `holdfast up status` */
export async function upStatusAction(input: Input, context: Context): Promise<Outcome> {
  return await fleetReport(await askFleet(directoryOf(input, context), 'status'), context)
}

/** `holdfast up stop` */
export async function upStopAction(input: Input, context: Context): Promise<Outcome> {
  const order = `stop/${encodeURIComponent(input.requiredWord(0, 'SERVER'))}`
  return await fleetReport(await askFleet(directoryOf(input, context), order), context)
}

/** `holdfast up start` */
export async function upStartAction(input: Input, context: Context): Promise<Outcome> {
  const order = `start/${encodeURIComponent(input.requiredWord(0, 'SERVER'))}`
  return await fleetReport(await askFleet(directoryOf(input, context), order), context)
}

function directoryOf(input: Input, context: Context): string {
  return fleetDirectory(context.settings, input.text('directory'))
}
