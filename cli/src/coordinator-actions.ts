import { hostname } from 'node:os'
import { createLog } from '@holdfast/base/log'
import { locateStore, readSinkFile, runService } from '@holdfast/coordinator'
import { ceremonyRoutes, keyRoutes, roles, statusRoutes } from '@holdfast/protocol'
import type { z } from 'zod'
import { ceremonyText } from './ceremony-text.ts'
import type { Context, Outcome } from './command.ts'
import { claimWith } from './coordinator-claim.ts'
import { clientFrom, passwordFrom, savedFile, signIn } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { age, moment } from './format.ts'
import type { Input } from './input.ts'
import { asFault, painter, printError, type Tone } from './output.ts'
import { readSecretText } from './streams.ts'

type Status = z.output<typeof statusRoutes.status.output>

/** `holdfast coordinator serve`: prints one line when it listens and ends with the signal. */
export async function serveAction(input: Input, context: Context): Promise<undefined> {
  const directory = input.requiredText('directory')
  const host = input.text('host') ?? '127.0.0.1'
  const sinkFile = input.text('audit-sink')
  const sink = sinkFile === undefined ? undefined : await readSinkFile(sinkFile)
  const [addresses, origins] = [input.texts('address'), input.texts('origin')]
  const log = createLog('coordinator', input.text('log') ?? 'info', {
    write: (line) => process.stderr.write(line),
  })
  await runService(
    {
      directory,
      store: await locateStore(directory, input.text('store') ?? 'sqlite'),
      host,
      port: input.count('port', 0, 65_535) ?? 8443,
      instance: input.text('instance') ?? hostname(),
      clock: context.clock,
      origins,
      tpm: input.text('tpm') ?? 'auto',
      ...(addresses.length === 0 ? {} : { addresses }),
      ...(sink === undefined ? {} : { sink }),
      onResume: (event) => log.info(event, 'resumed'),
      report: (error) => log.error({ err: error }, 'a request failed'),
    },
    async ({ port, coordinator }) => {
      const url = `https://${host.includes(':') ? `[${host}]` : host}:${port}`
      const { state, reason, identity } = coordinator
      const ready = { ready: true, url, port, identity: identity.digest, state, reason }
      const text = `listening on ${url}, identity ${identity.digest}, ${state} (${reason})`
      const line = context.json ? JSON.stringify({ ...ready, pid: process.pid }) : text
      await context.streams.out(`${line}\n`)
    },
    context.signal,
  )
  return undefined
}

/** What `--help` says about them stands in coordinator-commands.ts. */
const codeOf: Readonly<Record<Status['state'], number>> = {
  running: 0,
  recovery: 2,
  ready: 3,
  uninitialised: 3,
}

/** `holdfast coordinator status` */
export async function statusAction(input: Input, context: Context): Promise<Outcome> {
  try {
    using client = await clientFrom(input, context)
    const status = await client.call(statusRoutes.status)
    const text = statusText(status, client.place.url, context.clock.now())
    return { json: status, text, code: codeOf[status.state] }
  } catch (error) {
    if (context.signal.aborted) throw error
    if (!context.json) await printError(error, 'holdfast coordinator status', context)
    return { json: { error: asFault(error) }, text: '', code: 1 }
  }
}

const tones: Readonly<Record<Status['state'], Tone>> = {
  running: 'good',
  recovery: 'bad',
  ready: 'warn',
  uninitialised: 'warn',
}

function statusText(status: Status, url: string, now: number): string {
  const paint = painter()
  const { state, reason, text, hint, name, generation, holders, ceremony, nodes, alarms } = status
  const holdersLine = holders && [
    `${holders.threshold} of ${holders.list.length} needed`,
    `${holders.provenWithin90Days} proven in 90 days`,
    ...holders.list.map((each) => `${each.name} ${age(each.provenAt, now)}`),
  ]
  const rows: (readonly [string, string | undefined])[] = [
    ['state', `${paint(tones[state], state)} (${reason}): ${text}`],
    ['cluster', name],
    ['address', `${url}, instance ${status.instance}`],
    ['identity', status.identity],
    ['generation', generation === undefined ? undefined : String(generation)],
    ['holders', holdersLine?.join('; ')],
    ['ceremony', ceremony && `${ceremony.kind} ${ceremony.id}, ${ceremony.missing} missing`],
    ['nodes', nodes && `${nodes.connected} of ${nodes.total} connected, ${nodes.locked} locked`],
    ...alarms.map((alarm) => [paint('bad', 'alarm'), alarm] as const),
    ['next', state === 'running' ? undefined : hint],
  ]
  return rows
    .filter(([, value]) => value !== undefined)
    .map(([head, value]) => `${head.padEnd(12)}${value}`)
    .join('\n')
}

/** `holdfast coordinator claim` */
export async function claimAction(input: Input, context: Context): Promise<Outcome> {
  using token = await readSecretText(input.requiredText('token-file'))
  using client = await clientFrom(input, context)
  const claimed = await claimWith(token, client, input, context)
  return {
    json: claimed,
    text: `claimed as cluster ${claimed.cluster}; ${claimed.user} is logged in\nnext: holdfast manifest set FILE`,
  }
}

/** `holdfast coordinator login` */
export async function loginAction(input: Input, context: Context): Promise<Outcome> {
  const user = input.text('user') ?? 'admin'
  const scopes = input.texts('scope').map((text) => {
    const role = roles.find((each) => each === text)
    if (role !== undefined) return role
    throw cliFault('cli.usage', `"${text}" is not a role: ${roles.join(', ')}`)
  })
  using client = await clientFrom(input, context)
  using password = await passwordFrom(input, context, user)
  const signed = await signIn(client, context, user, password, scopes)
  const { url, identity, expires } = signed
  return {
    json: { url, identity, user, scopes: signed.scopes, expires, file: savedFile(context) },
    text: `${user} is logged in to ${url} as ${signed.scopes.join(', ') || 'nobody special'} until ${moment(expires)}\npinned ${identity}`,
  }
}

/** `holdfast coordinator recover` */
export async function recoverAction(input: Input, context: Context): Promise<Outcome> {
  return await beginAction(input, context, 'recovery')
}

/** `holdfast coordinator accept-rollback` */
export async function acceptRollbackAction(input: Input, context: Context): Promise<Outcome> {
  return await beginAction(input, context, 'rollback')
}

/** Begins a ceremony, or finds the open one. */
async function beginAction(
  input: Input,
  context: Context,
  kind: 'recovery' | 'rollback',
): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const status = await client.call(statusRoutes.status)
  if (status.state === 'running' || status.state === 'ready') {
    return { json: { state: status.state }, text: `it is ${status.state}: nothing to recover` }
  }
  const ceremony = await client.call(ceremonyRoutes.open, { body: { kind } })
  return { json: ceremony, text: await ceremonyText(ceremony, context) }
}

/** `holdfast coordinator seal` */
export async function sealAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const done = await client.call(keyRoutes.seal)
  return {
    json: done,
    text: 'sealed: this instance has forgotten the data key; holdfast coordinator recover, or a restart, opens it',
  }
}
