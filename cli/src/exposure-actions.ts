import { stat } from 'node:fs/promises'
import {
  type ExposurePlan,
  type ExposureReport,
  type ExposureWork,
  exposurePlanOf,
  respondToExposure,
} from '@holdfast/drills'
import { adminClient, offlineAdministration } from '@holdfast/keyserver'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { table } from './output.ts'
import { progressOf } from './progress.ts'
import { devicesFrom } from './vault-change-actions.ts'
import { vaultDepsFrom } from './volume.ts'

/** `holdfast exposure` */
export async function exposureAction(input: Input, context: Context): Promise<Outcome> {
  const work = await workFrom(input, context)
  if (input.flag('plan')) {
    const plan = await exposurePlanOf(work)
    return { json: plan, text: await planText(plan) }
  }
  using progress = await progressOf(context, 6)
  let done = 0
  const report = await respondToExposure({
    ...work,
    strand: input.flag('strand'),
    onEvent: (step) => {
      done = Math.min(done + 1, 6)
      progress.update(done, step)
    },
  })
  return {
    json: report,
    text: await reportText(report),
    ...(report.unreached.length === 0 ? {} : { kind: 'unavailable' as const }),
  }
}

async function workFrom(input: Input, context: Context): Promise<ExposureWork> {
  const servers = await Promise.all(input.texts('server').map(serverFrom))
  if (servers.length === 0) {
    throw cliFault('cli.usage', 'no exposed server is given', {
      hint: 'name each with its address and its keys: --server http://tang1.example.com=/var/lib/tang',
    })
  }
  const devices = await devicesFrom(input)
  return {
    id: input.text('id') ?? 'exposure',
    note: input.text('note') ?? 'keys exposed',
    servers,
    volumes: devices.map((device) => ({ name: device, volume: { device } })),
    vault: await vaultDepsFrom(input, context),
    signal: context.signal,
  }
}

/** `URL=PLACE`, where PLACE is a socket of a running server or a key directory. */
async function serverFrom(text: string): Promise<ExposureWork['servers'][number]> {
  const cut = text.lastIndexOf('=')
  const [url, place] = [text.slice(0, cut), text.slice(cut + 1)]
  if (cut === -1 || URL.parse(url) === null || place === '') {
    throw cliFault('cli.usage', `"${text}" is not URL=PLACE`)
  }
  const found = await stat(place).catch(() => undefined)
  if (found === undefined) {
    throw cliFault('cli.usage', `${place} is neither a key directory nor an administration socket`)
  }
  const administration = found.isSocket() ? adminClient(place) : offlineAdministration(place)
  return { name: url, url, administration }
}

async function planText(plan: ExposurePlan): Promise<string> {
  const rows = plan.steps.map((step) => {
    switch (step.do) {
      case 'mark_compromised':
        return ['mark as compromised', step.server, step.keys.join(', ')]
      case 'rotate':
        return ['rotate', step.server, step.prefix === '' ? '' : `prefix ${step.prefix}`]
      case 'rekey':
        return ['rekey', step.volume, `keyslot ${step.keyslot}`]
      case 'verify':
        return ['verify', step.volume, '']
      case 'destroy':
        return ['destroy', step.server, step.keys.join(', ')]
      default:
        return step satisfies never
    }
  })
  return [await table(['STEP', 'WHERE', 'WHAT'], rows), ...leftLines(plan.unreached)].join('\n')
}

async function reportText(report: ExposureReport): Promise<string> {
  const rows = [
    ...report.verified.map((volume) => [volume, 'moved, and opens without the exposed keys']),
    ...report.plan.unaffected.map((volume) => [volume, 'was not bound to them']),
    ...report.unreached.map(({ volume }) => [volume, 'not reached']),
  ]
  return [
    await table(['VOLUME', 'STATE'], rows),
    `destroyed: ${report.destroyed.join(', ') || 'nothing'}`,
    ...leftLines(report.unreached),
  ].join('\n')
}

function leftLines(unreached: ExposurePlan['unreached']): string[] {
  return unreached.map(({ volume, margin, recovery }) =>
    margin >= 0
      ? `${volume}: rekey it when it returns; until then it opens by its other servers`
      : `${volume}: only people open it now, by keyslot ${recovery.join(' or ') || 'none'}`,
  )
}
