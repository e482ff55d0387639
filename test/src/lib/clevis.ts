import { type RunOptions, run } from '@holdfast/base'

// The real clevis commands, with everything on standard streams.

export async function clevisEncrypt(
  pin: string,
  config: unknown,
  plaintext: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<string> {
  const options = { input: plaintext, environment }
  const { stdout } = await run('clevis', ['encrypt', pin, JSON.stringify(config)], options)
  return stdout.toString()
}

export async function clevisDecrypt(
  sealed: string,
  environment: Readonly<Record<string, string>> = {},
  options: Pick<RunOptions, 'accept'> = {},
): Promise<string> {
  const all = { input: sealed, environment, ...options }
  const { stdout } = await run('clevis', ['decrypt'], all)
  return stdout.toString()
}
