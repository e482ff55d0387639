import { join, resolve } from 'node:path'
import { Secret } from '@holdfast/base'
import { backupPolicy, keepBackups, type VaultDeps, type VolumeRef } from '@holdfast/vault'
import type { Context, Settings } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { pinsFrom } from './pins.ts'
import { readPolicyFile } from './policy-input.ts'
import { readInput, readSecretText } from './streams.ts'

/** The volume that a command line names. */
export function volumeFrom(input: Input): VolumeRef {
  const device = resolve(input.requiredWord(0, 'DEVICE'))
  const header = input.text('header')
  return header === undefined ? { device } : { device, header: resolve(header) }
}

/** What every vault operation needs, with header backups after each change where one is possible. */
export async function vaultDepsFrom(input: Input, context: Context): Promise<VaultDeps> {
  const pins = await pinsFrom(input, context, 'pin-passphrase-file')
  const { settings, clock } = context
  const deps: VaultDeps = {
    pins,
    clock,
    stateDirectory: stateDirectoryOf(input, settings),
    actor: settings.actor,
  }
  if (input.flag('without-backup')) return deps
  const file = input.text('backup-policy')
  const chosen = file === undefined ? undefined : await readPolicyFile(file)
  return {
    ...deps,
    afterChange: async (change) => {
      const policy = chosen ?? (await backupPolicy(deps, change.volume, change.added))
      if (policy !== undefined) return await keepBackups(deps, policy)(change)
      context.streams.err(
        `warning: no header backup was made: ${change.volume.device} has no recovery holders to seal it to`,
      )
    },
  }
}

/** A volume of the local fleet is remembered in the fleet's own state, unless --state-dir says else. */
function stateDirectoryOf(input: Input, settings: Settings): string {
  const fleet = join(settings.runtimeDirectory, 'fleet')
  const device = input.word(0)
  const inside = device !== undefined && resolve(device).startsWith(`${fleet}/`)
  return inside && !input.has('state-dir') ? join(fleet, 'state') : settings.stateDirectory
}

/**
 * The volume's passphrase as the command line gives it; undefined when it does not. The caller owns
 * it.
 */
export async function passphraseFrom(input: Input, context: Context): Promise<Secret | undefined> {
  const [text, file] = [input.text('passphrase-file'), input.text('key-file')]
  if (text !== undefined && file !== undefined) {
    throw cliFault('cli.usage', 'give --passphrase-file or --key-file, not both')
  }
  if (text !== undefined) return await readSecretText(text)
  if (file !== undefined) return Secret.take(await readInput(file, 8 * 1024 * 1024))
  if (!input.flag('ask')) return undefined
  return await askPassphrase(context, `Passphrase of ${input.word(0) ?? 'the volume'}`)
}

/** @throws Fault cli.no_terminal */
export async function askPassphrase(context: Context, question: string): Promise<Secret> {
  if (context.terminal !== undefined) return await context.terminal.secret(question, context.signal)
  throw cliFault('cli.no_terminal', 'there is no terminal to ask for a passphrase at', {
    hint: 'give it with --passphrase-file FILE, or - for standard input',
  })
}

/** The keyslot that the command needs. @throws Fault cli.usage */
export function keyslotFrom(input: Input): number {
  const keyslot = input.count('keyslot', 0, 31)
  if (keyslot !== undefined) return keyslot
  throw cliFault('cli.usage', '--keyslot is missing', {
    hint: `see which there are: holdfast vault list ${input.word(0) ?? 'DEVICE'}`,
  })
}
