import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { type FleetRehearsal, type LocalFleet, startLocalFleet } from '@holdfast/drills'
import type { Context, Outcome } from './command.ts'
import { askFleet, type FleetReport, serveControl } from './fleet-control.ts'
import { fleetDirectory, markPlace, takePlace } from './fleet-place.ts'
import { changesOf, fleetTable, statusLine } from './fleet-table.ts'
import type { Input } from './input.ts'
import { LiveScreen } from './live-screen.ts'
import { painter } from './output.ts'
import { progressOf } from './progress.ts'

/** `holdfast up` */
export async function upAction(input: Input, context: Context): Promise<Outcome | undefined> {
  const interval = (input.count('interval', 1, 3600) ?? 5) * 1000
  const directory = fleetDirectory(context.settings, input.text('directory'))
  await using _place = await takePlace(directory)
  await using fleet = await start(directory, context)
  await markPlace(fleet)
  const seen: { last: FleetRehearsal | undefined } = { last: undefined }
  await using _control = await serveControl(fleet, () => seen.last)
  seen.last = await fleet.rehearse(context.signal)
  const ready = seen.last.ways.every(({ state }) => state === 'proven')
  const report = { ready, ...facts(fleet), rehearsal: seen.last }
  if (input.flag('exit-when-ready')) {
    const text = await fleetTable(seen.last, painter(), context.clock.now())
    return { json: report, text, ...(ready ? {} : { kind: 'unavailable' as const }) }
  }
  if (context.json) await context.streams.out(`${JSON.stringify(report)}\n`)
  else await context.streams.out(`${hints(fleet, context, input.has('directory'))}\n`)
  await watch(fleet, seen, interval, context)
  return undefined
}

async function start(directory: string, context: Context): Promise<LocalFleet> {
  using progress = await progressOf(context, 5)
  const command = {
    program: process.execPath,
    args: [context.settings.program, 'keyserver', 'serve', '--json'],
  }
  const options = {
    directory,
    command,
    onProgress: ({ step, done }: { step: string; done: number }) => progress.update(done, step),
  }
  return await startLocalFleet(options, context.signal)
}

function facts({ directory, servers, holders, volume }: LocalFleet) {
  return {
    directory,
    pid: process.pid,
    servers: servers.map(({ name, url, pid, socket }) => ({ name, url, pid, socket })),
    holders: holders.map(({ name, privateKeyPath }) => ({ name, privateKeyPath })),
    volume: { device: volume.device, stateDirectory: volume.stateDirectory },
  }
}

/** Rehearses again and again until the signal, and shows what it sees. */
async function watch(
  fleet: LocalFleet,
  seen: { last: FleetRehearsal | undefined },
  interval: number,
  context: Context,
): Promise<void> {
  const { signal, streams, json, clock } = context
  using screen = new LiveScreen(streams, !json && streams.outIsTerminal)
  const news: string[] = []
  let before: FleetRehearsal | undefined
  while (!signal.aborted) {
    const now = seen.last
    if (now !== undefined && now !== before) {
      const changes = changesOf(before, now)
      if (json) await streams.out(`${JSON.stringify({ rehearsal: now })}\n`)
      else if (!screen.live) for (const change of changes) await streams.out(`${change}\n`)
      news.push(...changes)
      news.splice(0, Math.max(0, news.length - 5))
      before = now
    }
    if (screen.live && now !== undefined) {
      const paint = painter()
      const status = statusLine(await fleet.status(), paint)
      const shown = await fleetTable(now, paint, clock.now())
      await screen.draw([shown, status, '', ...news.map((line) => paint('dim', line))].join('\n'))
    }
    const due = (now?.at ?? 0) + interval - clock.now()
    const wait = screen.live ? Math.min(1000, Math.max(due, 50)) : Math.max(due, 50)
    await delay(wait, undefined, { signal }).catch(() => undefined)
    if (signal.aborted || (now?.at ?? 0) + interval > clock.now()) continue
    seen.last = await fleet.rehearse(signal).catch((error: unknown) => {
      if (signal.aborted) return now
      throw error
    })
  }
}

/** What to try in a second terminal: lines that can be copied. */
function hints(fleet: LocalFleet, { settings }: Context, elsewhere: boolean): string {
  const launcher = fileURLToPath(new URL('../bin/holdfast.mjs', pathToFileURL(settings.program)))
  const [where, state] = elsewhere ? [' --directory .', ' --state-dir state'] : ['', '']
  const [first, second] = fleet.holders
  const keys = [first, second]
    .flatMap((holder) => holder ?? [])
    .map(({ name }) => `--holder-key ${name}=holders/${name}.key`)
  return [
    'In a second terminal:',
    `  cd ${fleet.directory} && alias holdfast=${launcher}`,
    `  holdfast up stop server-1${where}        # a key server is gone: the volume still opens`,
    `  holdfast vault unlock vault.img${state}`,
    `  holdfast up start server-1${where}`,
    '  holdfast keyserver rotate --directory servers/0/keys',
    `  holdfast vault report vault.img${state}  # names the rotated server and the next command`,
    `  holdfast vault regen vault.img --keyslot 1${state}`,
    '  dd if=/dev/urandom of=vault.img bs=1M count=16 conv=notrunc   # destroy the header',
    `  holdfast vault header restore vault.img${state} ${keys.join(' ')}`,
    '',
  ].join('\n')
}

/** `holdfast up status` */
export async function upStatusAction(input: Input, context: Context): Promise<Outcome> {
  return await reported(await askFleet(directoryOf(input, context), 'status'), context)
}

/** `holdfast up stop` */
export async function upStopAction(input: Input, context: Context): Promise<Outcome> {
  const order = `stop/${encodeURIComponent(input.requiredWord(0, 'SERVER'))}`
  return await reported(await askFleet(directoryOf(input, context), order), context)
}

/** `holdfast up start` */
export async function upStartAction(input: Input, context: Context): Promise<Outcome> {
  const order = `start/${encodeURIComponent(input.requiredWord(0, 'SERVER'))}`
  return await reported(await askFleet(directoryOf(input, context), order), context)
}

function directoryOf(input: Input, context: Context): string {
  return fleetDirectory(context.settings, input.text('directory'))
}

async function reported(report: FleetReport, context: Context): Promise<Outcome> {
  const paint = painter()
  const { rehearsal, status } = report
  const shown =
    rehearsal === undefined ? [] : [await fleetTable(rehearsal, paint, context.clock.now())]
  return { json: report, text: [...shown, statusLine(status, paint)].join('\n') }
}
