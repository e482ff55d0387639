import { isFault, type Secret } from '@holdfast/base'
import type { Inspection } from '@holdfast/seal'
import {
  listVault,
  passVault,
  type ReportedServer,
  rehearseVault,
  reportVault,
  unlockVault,
} from '@holdfast/vault'
import type { Context, Outcome } from './command.ts'
import type { Input } from './input.ts'
import { painter, type Tone, table } from './output.ts'
import { timeoutOf } from './pins.ts'
import { listingText, rehearsalText } from './vault-text.ts'
import { keyslotFrom, passphraseFrom, vaultDepsFrom, volumeFrom } from './volume.ts'

/** `holdfast vault unlock` */
export async function unlockAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const [name, keyslot, retry] = [
    input.text('name'),
    input.count('keyslot', 0, 31),
    input.flag('retry'),
  ]
  using given = await passphraseFrom(input, context)
  const passphrase = passphraseSource(given, retry, input, context)
  const unlocked = await unlockVault(deps, volumeFrom(input), {
    timeout: timeoutOf(input),
    retry,
    signal: context.signal,
    testOnly: input.flag('test'),
    purposes: input.flag('recovery') ? ['automatic', 'recovery'] : ['automatic'],
    ...(name === undefined ? {} : { name }),
    ...(keyslot === undefined ? {} : { keyslot }),
    ...(passphrase === undefined ? {} : { passphrase }),
    onEvent: ({ state, label, fault, wait }) => {
      if (state !== 'retrying') return
      const seconds = ((wait ?? 0) / 1000).toFixed(1)
      context.streams.err(`waiting: ${label}: ${fault?.message}; again in ${seconds} s`)
    },
  })
  return { json: unlocked, text: unlockedText(unlocked) }
}

/** A given passphrase, or with --retry the prompt that stays usable while servers are asked. */
function passphraseSource(
  given: Secret | undefined,
  retry: boolean,
  input: Input,
  { terminal }: Context,
): ((signal: AbortSignal) => Promise<Secret | undefined>) | undefined {
  if (given !== undefined) return async () => given.clone()
  if (!retry || terminal === undefined) return undefined
  return async (signal) => {
    try {
      return await terminal.secret(
        `Passphrase of ${input.word(0)}, while the key servers are asked`,
        signal,
      )
    } catch (error) {
      if (isFault(error, 'cli.interrupted')) return undefined
      throw error
    }
  }
}

/** What an opened volume is told as. */
export function unlockedText(unlocked: Awaited<ReturnType<typeof unlockVault>>): string {
  const { keyslot, by, path, notice, uuid } = unlocked
  const slot = keyslot === undefined ? '' : `, keyslot ${keyslot}`
  const what = path === undefined ? `volume ${uuid} opens` : `volume ${uuid} is open at ${path}`
  return [`${what} (by ${by}${slot})`, ...(notice === undefined ? [] : [notice])].join('\n')
}

/** `holdfast vault pass` */
export async function passAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const keyslot = keyslotFrom(input)
  const { signal } = context
  using passphrase = await passVault(deps, volumeFrom(input), keyslot, {
    timeout: timeoutOf(input),
    signal,
  })
  const text = passphrase.reveal().toString('utf8')
  context.streams.err(
    `warning: keyslot ${keyslot} is marked: holdfast vault maintain replaces this passphrase`,
  )
  return { json: { keyslot, passphrase: text }, text }
}

/** `holdfast vault list` */
export async function listAction(input: Input, context: Context): Promise<Outcome> {
  const listing = await listVault(await vaultDepsFrom(input, context), volumeFrom(input))
  if (input.flag('clevis')) {
    const lines = listing.slots.flatMap(({ line }) => line ?? [])
    return { json: lines, text: lines.join('\n') }
  }
  if (input.flag('kids')) {
    const kids = [...new Set(listing.slots.flatMap((slot) => kidsOf(slot.inspection)))]
    return { json: kids, text: kids.join('\n') }
  }
  return { json: listing, text: await listingText(listing, painter(), context.clock.now()) }
}

function kidsOf(inspection: Inspection | undefined): string[] {
  if (inspection === undefined) return []
  const own = inspection.pin === 'tang' && inspection.kid !== undefined ? [inspection.kid] : []
  return [...own, ...(inspection.children ?? []).flatMap(kidsOf)]
}

const tones: Record<ReportedServer['state'], Tone> = {
  current: 'good',
  rotated: 'warn',
  unreachable: 'warn',
  untrusted: 'bad',
}

/** `holdfast vault report` */
export async function reportAction(input: Input, context: Context): Promise<Outcome> {
  const keyslot = input.count('keyslot', 0, 31)
  const bindings = await reportVault(await vaultDepsFrom(input, context), volumeFrom(input), {
    signal: context.signal,
    ...(keyslot === undefined ? {} : { keyslot }),
  })
  const paint = painter()
  const rows = bindings.flatMap(({ keyslot: slot, purpose, servers }) =>
    servers.map((server) => [
      String(slot),
      purpose,
      server.url,
      paint(tones[server.state], server.state),
      noteOf(server),
    ]),
  )
  const states = bindings.flatMap(({ servers }) => servers.map(({ state }) => state))
  const kind = states.some((state) => state === 'rotated' || state === 'untrusted')
    ? ('integrity' as const)
    : states.includes('unreachable')
      ? ('unavailable' as const)
      : undefined
  const text =
    rows.length === 0
      ? 'no binding uses a key server'
      : await table(['SLOT', 'PURPOSE', 'KEY SERVER', 'STATE', 'NOTE'], rows)
  const hint = states.includes('rotated')
    ? `\nnext: holdfast vault regen ${input.word(0)} --keyslot NUMBER`
    : ''
  return { json: bindings, text: `${text}${hint}`, ...(kind === undefined ? {} : { kind }) }
}

function noteOf({ gone, fresh, fault, vouchedBy }: ReportedServer): string {
  if (fault !== undefined) return fault.message
  const changes = [
    ...gone.map(({ use, thumbprint }) => `${use} ${thumbprint.slice(0, 8)} is gone`),
    ...fresh.map(({ use, thumbprint }) => `${use} ${thumbprint.slice(0, 8)} is new`),
  ]
  if (changes.length === 0) return ''
  return `${changes.join(', ')}${vouchedBy === undefined ? '' : '; vouched for'}`
}

/** `holdfast vault rehearse` */
export async function rehearseAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  using passphrase = await passphraseFrom(input, context)
  const rehearsal = await rehearseVault(deps, volumeFrom(input), {
    timeout: timeoutOf(input),
    signal: context.signal,
    clock: context.clock,
    people: ['people', 'holder-key', 'share', 'pin-passphrase-file'].some((name) =>
      input.has(name),
    ),
    ...(passphrase === undefined ? {} : { passphrase }),
  })
  const failed = rehearsal.ways.some(({ proof }) => proof.state === 'failed')
  return {
    json: rehearsal,
    text: await rehearsalText(rehearsal, painter()),
    ...(failed ? { kind: 'unavailable' as const } : {}),
  }
}
