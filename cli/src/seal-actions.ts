import { join } from 'node:path'
import { ensureDirectory, Secret, writeDurable } from '@holdfast/base'
import { jweLimit } from '@holdfast/crypto'
import {
  holderRequests,
  inspect,
  type OpenEvent,
  open,
  policyOf,
  rehearse,
  reseal,
  seal,
} from '@holdfast/seal'
import type { Context, Outcome } from './command.ts'
import { inspectionText, rehearsalRows, troubleOf } from './describe.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { painter, table } from './output.ts'
import { pinsFrom, timeoutOf } from './pins.ts'
import { hasPolicy, policyFrom } from './policy-input.ts'
import { readInput } from './streams.ts'

const secretLimit = 16 * 1024 * 1024

/** `holdfast seal` */
export async function sealAction(input: Input, context: Context): Promise<Outcome> {
  const policy = await policyFrom(input)
  const pins = await pinsFrom(input, context)
  using plaintext = Secret.take(await readMaterial(input, context, secretLimit))
  const sealed = await seal(pins, policy, plaintext, { signal: context.signal })
  const place = await deliver(input, `${sealed}\n`)
  const json = { ...place, ...(place.written === undefined ? { sealed } : {}) }
  return { json: { ...json, inspection: inspect(pins, sealed) }, text: placed(place, sealed) }
}

/** `holdfast open` */
export async function openAction(input: Input, context: Context): Promise<Outcome> {
  const sealed = await readSealed(input, context)
  const pins = await pinsFrom(input, context)
  const retry = input.flag('retry')
  using secret = await open(pins, sealed, {
    timeout: timeoutOf(input),
    retry,
    signal: context.signal,
    ...(retry ? { onEvent: (event) => tellWaiting(event, context) } : {}),
  })
  const place = await deliver(input, secret.reveal())
  if (place.written !== undefined) return { json: place, text: placed(place, '') }
  if (!context.json) return { json: {}, text: Buffer.from(secret.reveal()) }
  return { json: { plaintext: secret.reveal().toString('base64') }, text: '' }
}

/** `holdfast inspect` */
export async function inspectAction(input: Input, context: Context): Promise<Outcome> {
  const sealed = await readSealed(input, context)
  const pins = await pinsFrom(input, context)
  const inspection = inspect(pins, sealed)
  const shares = holderRequests(sealed)
  const folder = input.text('export-shares')
  const written: string[] = []
  for (const { name, wrapped } of folder === undefined ? [] : shares) {
    if (wrapped.length === 0) continue // X25519 and P-256 holders agree on a key, none is wrapped
    await ensureDirectory(folder ?? '.')
    const file = join(folder ?? '.', `${name}.wrapped`)
    await writeDurable(file, wrapped)
    written.push(file)
  }
  const wrappedShares = shares.map(({ name, kid, alg, wrapped }) => ({
    name,
    kid,
    alg,
    wrapped: wrapped.toString('base64'),
  }))
  return {
    json: { ...inspection, shares: wrappedShares, written },
    text: [inspectionText(inspection), ...written.map((file) => `wrote ${file}`)].join('\n'),
  }
}

/** `holdfast rehearse` */
export async function rehearseAction(input: Input, context: Context): Promise<Outcome> {
  const sealed = await readSealed(input, context)
  const rehearsal = await rehearse(await pinsFrom(input, context), sealed, {
    timeout: timeoutOf(input),
    signal: context.signal,
    people: ['people', 'holder-key', 'share', 'passphrase-file'].some((name) => input.has(name)),
  })
  const trouble = troubleOf(rehearsal)
  return {
    json: rehearsal,
    text: await table(['PIN', 'STATE', 'TIME', 'NOTE'], rehearsalRows(rehearsal, painter())),
    ...(trouble === undefined ? {} : { kind: trouble }),
  }
}

/** `holdfast reseal` */
export async function resealAction(input: Input, context: Context): Promise<Outcome> {
  const old = await readSealed(input, context)
  const pins = await pinsFrom(input, context)
  const policy = hasPolicy(input) ? await policyFrom(input) : policyOf(pins, old)
  const { sealed, rehearsal } = await reseal(pins, old, policy, {
    timeout: timeoutOf(input),
    signal: context.signal,
    unproven: input.flag('unproven'),
  })
  const place = await deliver(input, `${sealed}\n`)
  const json = { ...place, ...(place.written === undefined ? { sealed } : {}) }
  return { json: { ...json, rehearsal }, text: placed(place, sealed) }
}

async function readSealed(input: Input, context: Context): Promise<string> {
  return (await readMaterial(input, context, jweLimit + 2)).toString('utf8').trim()
}

/** What `--in` names; typing it at a terminal is refused because it would be shown. */
async function readMaterial(input: Input, context: Context, limit: number): Promise<Buffer> {
  const file = input.text('in') ?? '-'
  if (file === '-' && context.streams.inIsTerminal) {
    throw cliFault('cli.input_absent', 'nothing was given on standard input', {
      hint: 'redirect a file to it (< FILE) or name one with --in FILE',
    })
  }
  return await readInput(file, limit)
}

interface Placed {
  written?: string
}

/** Writes to `--out`; for standard output the caller prints. */
async function deliver(input: Input, bytes: Uint8Array | string): Promise<Placed> {
  const file = input.text('out') ?? '-'
  if (file === '-') return {}
  await writeDurable(file, bytes)
  return { written: file }
}

function placed(place: Placed, otherwise: string): string {
  return place.written === undefined ? otherwise : `wrote ${place.written}`
}

function tellWaiting({ state, pin, label, fault, wait }: OpenEvent, context: Context): void {
  if (state !== 'retrying') return
  const seconds = ((wait ?? 0) / 1000).toFixed(1)
  context.streams.err(`waiting: ${pin} ${label}: ${fault?.message}; again in ${seconds} s`)
}
