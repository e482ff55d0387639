import type { Secret } from '@holdfast/base'
import { createPins, type Pins } from '@holdfast/seal'
import type { Context } from './command.ts'
import { holdersFrom } from './holders.ts'
import type { Input } from './input.ts'
import { readSecretText } from './streams.ts'

/**
 * The pins as this command line has them. With a terminal a person may confirm a new key server
 * and type passphrases; without one a server must be pinned by the policy.
 * @param passphraseOption the option that names a file with a passphrase pin's passphrase
 */
export async function pinsFrom(
  input: Input,
  context: Context,
  passphraseOption = 'passphrase-file',
): Promise<Pins> {
  const { terminal, signal, settings } = context
  const wantsHolders = input.has('holder-key') || input.has('share')
  const typed = onceAtATime()
  const confirm = (url: string, thumbprints: readonly string[]): Promise<boolean> =>
    typed(async () => {
      const shown = thumbprints.map((thumbprint) => `  ${thumbprint}`).join('\n')
      const question = `The key server ${url} signs with\n${shown}\nDo you trust these keys?`
      return (await terminal?.confirm(question, signal)) ?? false
    })
  const passphrase = async (label: string, abort?: AbortSignal): Promise<Secret | undefined> => {
    const file = input.text(passphraseOption)
    if (file !== undefined) return await readSecretText(file)
    if (terminal === undefined) return undefined
    return await typed(() => terminal.secret(`Enter ${label}`, abort ?? signal))
  }
  return createPins({
    passphrase,
    ...(terminal === undefined ? {} : { confirm }),
    ...(wantsHolders ? { holders: await holdersFrom(input, context) } : {}),
    ...(settings.tcti === undefined ? {} : { tcti: settings.tcti }),
  })
}

/** Questions of pins that race must not overlap on the terminal. */
function onceAtATime(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const mine = last.then(work, work)
    last = mine
    return mine
  }
}

/** Milliseconds per pin. @throws Fault cli.usage */
export function timeoutOf(input: Input): number {
  return (input.count('timeout', 1, 86_400) ?? 10) * 1000
}
