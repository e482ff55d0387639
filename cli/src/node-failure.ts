import { baseFault, Fault, type FaultKind, type FaultOptions } from '@holdfast/base'
import { linkFault } from '@holdfast/link'
import type { commandSchema } from '@holdfast/protocol'
import { sealFault } from '@holdfast/seal'
import { vaultFault } from '@holdfast/vault'
import type { z } from 'zod'
import { cliFault } from './faults.ts'

// What a node answers when it could not do something: a code of one of its parts and a sentence. Here
// it becomes the fault that it was there, with what to do about it.

const kinds: Readonly<Record<string, FaultKind>> = {
  ...baseFault.codes,
  ...sealFault.codes,
  ...vaultFault.codes,
  ...linkFault.codes,
}

/** Codes whose next step is not to look at the node. */
const hints: Readonly<Record<string, string>> = {
  'agent.command_unknown': 'its agent is older than this command: update the node',
  'agent.key_malformed': 'its keys have changed since: holdfast node show NAME, then try again',
  'agent.wards_remain':
    'its shares are being moved to others: holdfast node show NAME, and try again when it has no wards',
  'vault.passphrase_wrong': 'nothing was changed, and the attempt was counted',
}

type Failed = Pick<z.output<typeof commandSchema>, 'id' | 'node' | 'command' | 'code' | 'message'>

/** The fault of a failed command. @param name the node's, for what to type next */
export function failureOf(
  { id, node, command, code, message }: Failed,
  name = node.slice(0, 12),
): Fault {
  const details = { command: id, node }
  if (code === undefined) {
    const text = `${command} failed and the node gave no reason`
    return cliFault('cli.command_failed', text, { details })
  }
  const hint = (hints[code] ?? 'holdfast doctor node NAME').replaceAll('NAME', name)
  return toldFault(code, message ?? `${command} failed`, { hint, details })
}

/** A fault that a node met and told, as if it had been met here. */
export function toldFault(code: string, message: string, options: FaultOptions): Fault {
  return new Fault(code, kindOfCode(code), message, options)
}

/** The kind of a code that came over the network. */
export function kindOfCode(code: string): FaultKind {
  return kinds[code] ?? kindByWord(code)
}

/** For codes of a newer node, or of parts that this program does not carry. */
function kindByWord(code: string): FaultKind {
  if (/unreachable|not_connected|held|timeout/.test(code)) return 'unavailable'
  if (/absent|unknown/.test(code)) return 'absent'
  if (/damaged|foreign|wrong|invalid|stale|lied/.test(code)) return 'integrity'
  if (/malformed/.test(code)) return 'invalid'
  return /internal/.test(code) ? 'internal' : 'refused'
}
