import { createPrivateKey, type KeyObject } from 'node:crypto'
import { isFault, Secret } from '@holdfast/base'
import type { HolderAnswer, HolderRequest, Holders } from '@holdfast/seal'
import type { Context } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { readInput, readSecretText } from './streams.ts'

/** Answers for the holders named on the command line; others are absent. */
export async function holdersFrom(input: Input, context: Context): Promise<Holders> {
  const shares = new Map<string, Secret>()
  for (const [name, file] of input.pairs('share')) shares.set(name, await readShare(name, file))
  const keys = new Map<string, KeyObject>()
  for (const [name, file] of input.pairs('holder-key')) {
    keys.set(name, await readPrivateKey(name, file, input, context))
  }
  return {
    answer: async ({ name }: HolderRequest): Promise<HolderAnswer | undefined> => {
      const privateKey = keys.get(name)
      if (privateKey !== undefined) return { privateKey }
      const share = shares.get(name)
      return share === undefined ? undefined : { contentKey: share.clone() }
    },
  }
}

/** @throws Fault cli.share_malformed */
async function readShare(name: string, file: string): Promise<Secret> {
  const bytes = await readInput(file, 4096)
  if (bytes.length === 32) return Secret.take(bytes)
  const decoded = Buffer.from(bytes.toString('latin1').trim(), 'base64')
  bytes.fill(0)
  if (decoded.length === 32) return Secret.take(decoded)
  throw cliFault('cli.share_malformed', `${file}, the share of ${name}, is not 32 bytes`, {
    hint: `unwrap it again: openssl pkeyutl -decrypt -inkey ${name}.key -in ${name}.wrapped -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -out ${file}`,
  })
}

/**
 * A private key from PEM, asking for its passphrase when it has one.
 * @throws Fault cli.config_invalid, cli.no_terminal
 */
export async function readPrivateKey(
  name: string,
  file: string,
  input: Input,
  context: Context,
): Promise<KeyObject> {
  const pem = await readInput(file, 64 * 1024)
  if (!/^-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED/m.test(pem.toString('latin1'))) {
    try {
      return createPrivateKey(pem)
    } catch (error) {
      throw unreadable(name, file, error)
    } finally {
      pem.fill(0)
    }
  }
  using passphrase = await passphraseFor(name, file, input, context)
  try {
    return createPrivateKey({ key: pem, passphrase: passphrase.reveal() })
  } catch (error) {
    if (isFault(error)) throw error
    throw unreadable(name, file, error, 'the passphrase is wrong, or')
  } finally {
    pem.fill(0)
  }
}

async function passphraseFor(
  name: string,
  file: string,
  input: Input,
  context: Context,
): Promise<Secret> {
  const given = input.text('key-passphrase-file')
  if (given !== undefined) return await readSecretText(given)
  if (context.terminal === undefined) {
    throw cliFault('cli.no_terminal', `${file} has a passphrase and nobody is there to type it`, {
      hint: 'give it with --key-passphrase-file FILE, or - for standard input',
    })
  }
  return await context.terminal.secret(`Passphrase of ${name}'s key ${file}`, context.signal)
}

function unreadable(name: string, file: string, cause: unknown, also = ''): Error {
  const text = `${also} ${file} is not a private key in PEM form`.trim()
  return cliFault('cli.config_invalid', `the key of ${name} cannot be used: ${text}`, {
    cause: (cause as { code?: string }).code,
    hint: `try: openssl pkey -in ${file} -noout`,
  })
}
