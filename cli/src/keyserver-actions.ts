import { createLog } from '@holdfast/base/log'
import { type CurveName, isCurveName, jweLimit } from '@holdfast/crypto'
import {
  type Administration,
  adminClient,
  backup,
  type Inventory,
  type KeyReport,
  offlineAdministration,
  processChannel,
  type RetirePlan,
  restore,
  runWorker,
  serve,
} from '@holdfast/keyserver'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { age, moment } from './format.ts'
import type { Input } from './input.ts'
import { painter, type Tone, table } from './output.ts'
import { pinsFrom } from './pins.ts'
import { readPolicyFile } from './policy-input.ts'
import { readInput } from './streams.ts'

/** `holdfast keyserver serve`: prints one line when it listens and ends with the signal. */
export async function serveAction(input: Input, context: Context): Promise<undefined> {
  const host = input.text('host') ?? '127.0.0.1'
  const curve = curveOf(input, 'init')
  const adminSocket = input.text('admin')
  const workers = input.count('workers', 0, 256) ?? 0
  await using server = await serve(
    {
      directory: input.requiredText('directory'),
      port: input.count('port', 0, 65_535) ?? 7500,
      host,
      workers,
      workerProgram: { program: context.settings.program, args: ['keyserver', 'worker'] },
      audit: input.text('audit') ?? 'none',
      limits: { rate: input.count('rate') ?? 1000 },
      log: createLog('keyserver', input.text('log') ?? 'warn', {
        write: (line) => process.stderr.write(line),
      }),
      ...(curve === undefined ? {} : { initialise: { curve } }),
      ...(adminSocket === undefined ? {} : { adminSocket }),
    },
    context.signal,
  )
  const { port } = server
  const url = `http://${hostOf(host)}:${port}`
  const ready = { ready: true, url, port, adminSocket: server.adminSocket, pid: process.pid }
  const text = `listening on ${url}, administration on ${server.adminSocket}`
  await context.streams.out(`${context.json ? JSON.stringify(ready) : text}\n`)
  await aborted(context.signal)
  return undefined
}

function hostOf(host: string): string {
  return host.includes(':') ? `[${host}]` : host
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

/** A server process, started by `serve`; it talks to its parent only. */
export async function workerAction(): Promise<undefined> {
  await runWorker(processChannel())
  process.disconnect?.()
  return undefined
}

/** `holdfast keyserver keys` */
export async function keysAction(input: Input, context: Context): Promise<Outcome> {
  const inventory = await administrationOf(input).list()
  return { json: inventory, text: await inventoryText(inventory, context.clock.now()) }
}

/** `holdfast keyserver rotate` */
export async function rotateAction(input: Input): Promise<Outcome> {
  const [curve, only, prefix] = [curveOf(input, 'curve'), input.text('only'), input.text('prefix')]
  const result = await administrationOf(input).rotate({
    ...(curve === undefined ? {} : { curve }),
    ...(only === 'signing' || only === 'exchange' ? { uses: [only] } : {}),
    ...(prefix === undefined ? {} : { prefix }),
  })
  const lines = result.created.map(({ use, crv, kid }) => `new ${use} key ${kid} (${crv})`)
  return {
    json: result,
    text: [
      ...lines,
      'the old keys are hidden and still answer; move the bindings, then retire',
      'a policy or manifest that names an old signing key ("thp") makes no new bindings: put the new one there',
    ].join('\n'),
  }
}

/** `holdfast keyserver retire` */
export async function retireAction(input: Input): Promise<Outcome> {
  const kids = input.words(0)
  const force = input.flag('force')
  if (force && kids.length === 0) {
    throw cliFault('cli.usage', '--force needs the thumbprints of the keys to destroy', {
      hint: 'holdfast keyserver keys lists them',
    })
  }
  const needed = input.text('needed')
  const plan = await administrationOf(input).retire({
    ...(kids.length === 0 ? {} : { kids }),
    unusedDays: input.count('unused-days') ?? 30,
    ...(needed === undefined ? {} : { needed: await readLines(needed) }),
    force,
    dryRun: input.flag('dry-run'),
  })
  return { json: plan, text: retireText(plan, input.flag('dry-run')) }
}

function retireText(plan: RetirePlan, dryRun: boolean): string {
  const verb = dryRun ? 'would destroy' : 'destroyed'
  const lines = [
    ...plan.destroy.map((kid) => `${verb} ${kid}`),
    ...plan.kept.map(({ kid, reasons }) => `kept ${kid}: ${reasons.join('; ')}`),
    ...plan.stranded.map(
      ({ kid, reasons, neededAs }) =>
        `stranded by destroying ${kid}: ${[...reasons, ...neededAs].join('; ')}`,
    ),
  ]
  return lines.length === 0 ? 'there is no hidden key' : lines.join('\n')
}

/** `holdfast keyserver backup` */
export async function backupAction(input: Input, context: Context): Promise<Outcome> {
  const report = await backup(
    {
      directory: input.requiredText('directory'),
      policy: await readPolicyFile(input.requiredText('policy')),
      pins: await pinsFrom(input, context),
      output: input.requiredText('out'),
      signal: context.signal,
    },
    context.clock.now(),
  )
  const { output, keys, digest } = report
  const text = `sealed ${keys.length} keys, each proven, to ${output}\nsha256 ${digest}`
  return { json: report, text }
}

/** `holdfast keyserver restore` */
export async function restoreAction(input: Input, context: Context): Promise<Outcome> {
  const sealed = await readInput(input.requiredWord(0, 'BACKUP'), jweLimit + 2)
  const report = await restore(
    {
      directory: input.requiredText('directory'),
      pins: await pinsFrom(input, context),
      sealed: sealed.toString('utf8').trim(),
      merge: input.flag('merge'),
      revive: input.flag('revive'),
      expect: input.texts('expect'),
      signal: context.signal,
    },
    context.clock,
  )
  const { restored, present, destroyed, proven, made } = report
  const text = [
    `restored ${restored.length} keys of a backup made ${moment(made)}, ${present.length} were there`,
    `${proven.length} keys were proven by a recovery or signature`,
    ...destroyed.map((kid) => `stays destroyed: ${kid}`),
  ].join('\n')
  return { json: report, text }
}

/** `holdfast keyserver prefix add` */
export async function prefixAddAction(input: Input): Promise<Outcome> {
  const [name, curve] = [input.requiredWord(0, 'NAME'), curveOf(input, 'curve')]
  const options = curve === undefined ? {} : { curve }
  const result = await administrationOf(input).addPrefix(name, options)
  const kid = result.created[0]?.kid
  return {
    json: result,
    text: `prefix ${name}: exchange key ${kid}, address http://SERVER/p/${name}`,
  }
}

/** `holdfast keyserver prefix revoke` */
export async function prefixRevokeAction(input: Input): Promise<Outcome> {
  const name = input.requiredWord(0, 'NAME')
  const result = await administrationOf(input).revokePrefix(name)
  return { json: result, text: `prefix ${name} is revoked: its keys are destroyed` }
}

/** `holdfast keyserver prefix list` */
export async function prefixListAction(input: Input, context: Context): Promise<Outcome> {
  const { prefixes, keys } = await administrationOf(input).list()
  const found = prefixes.map((name) => ({
    name,
    keys: keys.filter((key) => key.prefix === name && key.state !== 'retired'),
  }))
  const rows = found.flatMap(({ name, keys: own }) =>
    own.map((key) => [name, key.state, key.crv, key.kid, age(key.lastUsed, context.clock.now())]),
  )
  const head = ['PREFIX', 'STATE', 'CURVE', 'EXCHANGE KEY', 'LAST USED']
  return { json: found, text: rows.length === 0 ? 'no prefixes' : await table(head, rows) }
}

/** `holdfast keyserver compromise mark` */
export async function compromiseMarkAction(input: Input): Promise<Outcome> {
  const kids = input.words(0)
  const note = input.text('note') ?? 'no note'
  await administrationOf(input).markCompromised(kids, note)
  const next = 'next: holdfast keyserver rotate, move the bindings, holdfast keyserver retire'
  return { json: { marked: kids, note }, text: `marked ${kids.join(', ')}\n${next}` }
}

/** `holdfast keyserver status` */
export async function statusAction(input: Input): Promise<Outcome> {
  const status = await administrationOf(input).status()
  const { health } = status
  const paint = painter()
  const rows: [string, string][] = [
    ['health', paint(health.status === 'ok' ? 'good' : 'bad', health.status)],
    ...health.reasons.map((reason): [string, string] => ['reason', reason]),
    ['directory', status.directory],
    ['port', String(status.port)],
    ['process', `${status.pid}, ${status.workers} answering, ${status.restarts} replaced`],
    ['connections', String(status.connections)],
    ['keys', `${health.advertised} advertised, ${health.hidden} hidden`],
  ]
  return {
    json: status,
    text: rows.map(([name, value]) => `${name.padEnd(12)}${value}`).join('\n'),
    ...(health.status === 'failed' ? { kind: 'unavailable' as const } : {}),
  }
}

/** `holdfast keyserver hold` */
export async function holdAction(input: Input): Promise<Outcome> {
  const reason = input.requiredWord(0, 'REASON')
  await administrationOf(input).hold(reason)
  return { json: { hold: reason }, text: 'recoveries are answered with 503 until released' }
}

/** `holdfast keyserver release` */
export async function releaseAction(input: Input): Promise<Outcome> {
  await administrationOf(input).release()
  return { json: { hold: null }, text: 'recoveries are answered again' }
}

function administrationOf(input: Input): Administration {
  const [socket, directory] = [input.text('admin'), input.text('directory')]
  if (socket !== undefined) return adminClient(socket)
  if (directory !== undefined) return offlineAdministration(directory)
  throw cliFault('cli.usage', 'neither --directory nor --admin is given', {
    hint: 'name the key directory, such as --directory /var/lib/tang',
  })
}

function curveOf(input: Input, name: string): CurveName | undefined {
  const text = input.text(name)
  return text !== undefined && isCurveName(text) ? text : undefined
}

async function readLines(file: string): Promise<string[]> {
  const text = (await readInput(file, 4 * 1024 * 1024)).toString('utf8')
  return text.split(/\s+/).filter((word) => word !== '')
}

async function inventoryText(inventory: Inventory, now: number): Promise<string> {
  const paint = painter()
  const tones: Record<KeyReport['state'], Tone> = {
    advertised: 'good',
    hidden: 'warn',
    retired: 'dim',
  }
  const rows = inventory.keys.map((key) => [
    paint(tones[key.state], key.state),
    key.use,
    key.crv,
    key.kid,
    key.prefix === '' ? '-' : key.prefix,
    `${age(key.lastUsed, now)} (${key.uses})`,
    noteOf(key),
  ])
  const head = ['STATE', 'USE', 'CURVE', 'THUMBPRINT', 'PREFIX', 'LAST USED', 'NOTE']
  const { hold, problems } = inventory
  return [
    rows.length === 0 ? 'no keys' : await table(head, rows),
    ...problems.map(({ file, reason }) => `${paint('bad', 'problem')}: ${file}: ${reason}`),
    ...(hold === undefined
      ? []
      : [`${paint('warn', 'on hold')} since ${moment(hold.at)}: ${hold.reason}`]),
  ].join('\n')
}

function noteOf({ compromised, reason }: KeyReport): string {
  if (compromised !== undefined) return `compromised: ${compromised.note}`
  return reason ?? ''
}
