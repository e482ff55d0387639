import { stat } from 'node:fs/promises'
import { run, type Secret, writeDurable } from '@holdfast/base'
import { leavesOf } from '@holdfast/seal'
import {
  addOwnerPassphrase,
  adoptVault,
  type BindOptions,
  type BindResult,
  bindVault,
  createVault,
  editVault,
  maintainVault,
  regenVault,
  rekeyFleet,
  unbindVault,
} from '@holdfast/vault'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { parseSize } from './format.ts'
import type { Input } from './input.ts'
import { painter, table } from './output.ts'
import { timeoutOf } from './pins.ts'
import { policyFrom, readPolicyFile } from './policy-input.ts'
import { progressOf } from './progress.ts'
import { readInput, readSecretText } from './streams.ts'
import { standingLines } from './vault-text.ts'
import { askPassphrase, keyslotFrom, passphraseFrom, vaultDepsFrom, volumeFrom } from './volume.ts'

/** `holdfast vault create` */
export async function createAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const automatic = await readPolicyFile(input.requiredText('automatic'))
  const file = input.text('recovery')
  const recovery = file === undefined ? undefined : await readPolicyFile(file)
  using owner = await ownerFrom(input, context)
  const volume = volumeFrom(input)
  await makeFile(volume.device, input)
  const label = input.text('label')
  const created = await createVault(deps, volume, {
    automatic,
    overwrite: input.flag('overwrite'),
    reachable: input.flag('reachable'),
    unproven: input.flag('unproven'),
    signal: context.signal,
    ...(recovery === undefined ? {} : { recovery }),
    ...(owner === undefined ? {} : { owner }),
    ...(label === undefined ? {} : { label }),
  })
  const text = [
    `created ${created.uuid}: automatic keyslot ${created.automatic.keyslot}`,
    ...(created.recovery === undefined ? [] : [`recovery keyslot ${created.recovery}`]),
    ...(created.owner === undefined ? [] : [`owner keyslot ${created.owner}`]),
    ...missingLines(created.automatic),
    ...standingLines(created.standing, painter()),
  ].join('\n')
  return { json: created, text }
}

/** The owner's passphrase, typed twice or read. */
async function ownerFrom(input: Input, context: Context): Promise<Secret | undefined> {
  const file = input.text('owner-passphrase-file')
  if (file !== undefined) return await readSecretText(file)
  if (!input.flag('owner')) return undefined
  const first = await askPassphrase(context, 'New owner passphrase')
  using second = await askPassphrase(context, 'The same again')
  if (first.equals(second)) return first
  first[Symbol.dispose]()
  throw cliFault('cli.confirmation_refused', 'the two passphrases differ; nothing was changed')
}

/** Makes the sparse file that `--size` asks for, when nothing of that name exists. */
async function makeFile(device: string, input: Input): Promise<void> {
  const text = input.text('size')
  if (text === undefined) return
  const bytes = parseSize(text)
  if (bytes === undefined) {
    throw cliFault('cli.usage', `--size must look like 64M or 2G, not "${text}"`)
  }
  if ((await stat(device).catch(() => undefined)) !== undefined) {
    throw cliFault('cli.usage', `${device} exists, so --size cannot make it`, {
      hint: 'leave --size out to format what is there',
    })
  }
  await writeDurable(device, '')
  await run('truncate', ['--size', String(bytes), device])
}

/** `holdfast vault adopt` */
export async function adoptAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const file = input.text('recovery')
  const recovery = file === undefined ? undefined : await readPolicyFile(file)
  using passphrase = await passphraseFrom(input, context)
  const adopted = await adoptVault(deps, volumeFrom(input), {
    ...changeOptions(input, context, passphrase),
    ...(recovery === undefined ? {} : { recovery }),
  })
  const text = [
    `adopted ${adopted.uuid}: ${adopted.marked.length} clevis bindings recorded`,
    ...(adopted.owner === undefined ? [] : [`keyslot ${adopted.owner} is the owner's`]),
    ...(adopted.recovery === undefined ? [] : [resultText(adopted.recovery)]),
    ...standingLines(adopted.standing, painter()),
  ].join('\n')
  return { json: adopted, text }
}

/** `holdfast vault bind` */
export async function bindAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const volume = volumeFrom(input)
  using passphrase = await passphraseFrom(input, context)
  using owner = await ownerFrom(input, context)
  const options = changeOptions(input, context, passphrase)
  if (owner !== undefined) {
    const result = await addOwnerPassphrase(deps, volume, owner, options)
    return { json: result, text: resultText(result) }
  }
  const token = input.count('token', 0, 31)
  const result = await bindVault(deps, volume, await policyFrom(input, 1), {
    ...options,
    purpose: input.text('purpose') === 'recovery' ? 'recovery' : 'automatic',
    reachable: input.flag('reachable'),
    ...(token === undefined ? {} : { token }),
  })
  return { json: result, text: resultText(result) }
}

/** `holdfast vault regen` */
export async function regenAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const keyslot = keyslotFrom(input)
  using passphrase = await passphraseFrom(input, context)
  const { keyslot: _, ...options } = changeOptions(input, context, passphrase)
  const result = await regenVault(deps, volumeFrom(input), keyslot, options)
  return { json: result, text: resultText(result) }
}

/** `holdfast vault edit` */
export async function editAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const keyslot = keyslotFrom(input)
  const policy = await policyFrom(input, 1)
  using passphrase = await passphraseFrom(input, context)
  const { keyslot: _, ...options } = changeOptions(input, context, passphrase)
  const result = await editVault(deps, volumeFrom(input), keyslot, policy, {
    ...options,
    reachable: input.flag('reachable'),
    force: input.flag('force'),
  })
  const pins = leavesOf(policy).length
  return { json: result, text: `${resultText(result)}\nthe policy has ${pins} pins` }
}

/** `holdfast vault unbind` */
export async function unbindAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const keyslot = keyslotFrom(input)
  using passphrase = await passphraseFrom(input, context)
  const result = await unbindVault(deps, volumeFrom(input), keyslot, {
    force: input.flag('force'),
    signal: context.signal,
    timeout: timeoutOf(input),
    ...(passphrase === undefined ? {} : { passphrase }),
  })
  return { json: result, text: resultText({ ...result, missing: [] }) }
}

/** `holdfast vault maintain` */
export async function maintainAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const done = await maintainVault(deps, volumeFrom(input), {
    signal: context.signal,
    timeout: timeoutOf(input),
  })
  const { settled, readopted, regenerated, completed, waiting } = done
  const lines = [
    ...(settled.outcome === 'nothing'
      ? []
      : [`${settled.operation ?? 'a change'} was ${settled.outcome}`]),
    ...readopted.map((keyslot) => `keyslot ${keyslot}: token recorded again`),
    ...regenerated.map(({ from, to }) => `keyslot ${from} was regenerated as ${to}`),
    ...completed.map(({ from, to }) => `keyslot ${from} was completed as ${to}`),
    ...waiting.map(
      ({ keyslot, why, fault }) =>
        `keyslot ${keyslot} still waits to ${why}: ${fault?.message ?? 'no further server answers'}`,
    ),
  ]
  return {
    json: done,
    text: lines.length === 0 ? 'nothing to do' : lines.join('\n'),
    ...(waiting.length === 0 ? {} : { kind: 'unavailable' as const }),
  }
}

/** `holdfast vault rekey` */
export async function rekeyAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const devices = await devicesFrom(input)
  const affected = input.texts('affected')
  using progress = await progressOf(context, devices.length)
  const result = await rekeyFleet(deps, {
    id: input.text('id') ?? 'rekey',
    volumes: devices.map((device) => ({ device })),
    concurrency: input.count('concurrency', 1, 64) ?? 4,
    signal: context.signal,
    timeout: timeoutOf(input),
    ...(affected.length === 0 ? {} : { affected }),
    onEvent: ({ device, state, finished }) => {
      if (state !== 'started') progress.update(finished, `${device} ${state.replace('_', ' ')}`)
    },
  })
  const rows = [
    ...result.rekeyed.map(({ device, keyslots }) => [
      device,
      'rekeyed',
      keyslots.map(([from, to]) => `${from} -> ${to}`).join(', '),
    ]),
    ...result.unaffected.map((device) => [device, 'nothing to do', '']),
    ...result.failed.map(({ device, fault }) => [device, 'failed', fault.message]),
  ]
  return {
    json: result,
    text: await table(['DEVICE', 'STATE', 'NOTE'], rows),
    ...(result.failed.length === 0 ? {} : { kind: 'unavailable' as const }),
  }
}

/** The devices of a command that takes many: its words and the lines of `--devices`. */
export async function devicesFrom(input: Input): Promise<string[]> {
  const file = input.text('devices')
  const listed =
    file === undefined ? [] : (await readInput(file, 4 * 1024 * 1024)).toString('utf8').split('\n')
  const devices = [...input.words(0), ...listed.map((line) => line.trim())].filter(Boolean)
  if (devices.length > 0) return [...new Set(devices)]
  throw cliFault('cli.usage', 'no device is given', {
    hint: 'name them, or give a file with one a line: --devices FILE',
  })
}

function changeOptions(
  input: Input,
  context: Context,
  passphrase: Secret | undefined,
): BindOptions {
  const [keyslot, label] = [input.count('keyslot', 0, 31), input.text('label')]
  return {
    timeout: timeoutOf(input),
    signal: context.signal,
    unproven: input.flag('unproven'),
    ...(passphrase === undefined ? {} : { passphrase }),
    ...(keyslot === undefined ? {} : { keyslot }),
    ...(label === undefined ? {} : { label }),
  }
}

function resultText(result: Omit<BindResult, 'uuid'>): string {
  const { keyslot, proof, removed } = result
  const proven = proof === undefined ? '' : `, ${proof.state.replace('_', ' ')}`
  return [
    ...(keyslot === undefined ? [] : [`keyslot ${keyslot} was added${proven}`]),
    ...(removed === undefined ? [] : [`keyslot ${removed.keyslot} was removed`]),
    ...missingLines(result),
    ...(result.backupProblem === undefined
      ? []
      : [`${painter()('warn', 'no header backup')}: ${result.backupProblem}`]),
  ].join('\n')
}

function missingLines({ missing }: Pick<BindResult, 'missing'>): string[] {
  return missing.map((label) => `not bound yet: ${label}; holdfast vault maintain does it later`)
}
