import { constants, type KeyObject, privateDecrypt, sign } from 'node:crypto'
import { readBounded, Secret, writeDurable } from '@holdfast/base'
import { approval, removeOaep, shareAnswer } from '@holdfast/coordinator'
import { checkUnwrapped, holderRequests, type SealedUse } from '@holdfast/seal'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { readPrivateKey } from './holders.ts'
import type { Input } from './input.ts'

// What a holder's private key does: it unwraps the share and signs the statement. With --key it does
// both here. A key in a token does them elsewhere, in two steps: --to-sign writes the statement,
// made with what the token decrypted, and --signature takes what the token made of it.

/** What a coordinator asks of a holder. */
export interface Asked {
  statement: string
  /** What the share is of, compact JWE. Only what belongs to this is ever handed in. */
  sealed: string
}

export interface Signed extends Disposable {
  readonly statement: Secret
  readonly signature: Buffer
}

/** The largest modulus of a token, in bytes, with room to spare. */
const largestBlock = 4096

/**
 * The whole statement and its signature.
 * @throws Fault cli.usage, cli.share_malformed, cli.holder_key_unfit, ceremony.share_wrong
 */
export async function signAnswer(
  input: Input,
  context: Context,
  holder: string,
  asked: Asked,
): Promise<Signed> {
  const carried = input.text('signature')
  const key = carried === undefined ? await keyFrom(input, context, holder) : undefined
  const statement = await wholeStatement(input, holder, asked, key)
  const signature =
    key === undefined
      ? await readBounded(carried ?? '', largestBlock)
      : sign('sha256', statement.reveal(), key)
  return { statement, signature, [Symbol.dispose]: () => statement[Symbol.dispose]() }
}

/** Whether the token is to do its part first; `leaveForToken` writes what it needs. */
export function isForToken(input: Input): boolean {
  return input.has('wrapped') || input.has('to-sign')
}

/** Writes the wrapped share, or the statement to be signed, for a token. */
export async function leaveForToken(input: Input, holder: string, asked: Asked): Promise<Outcome> {
  const [wrapped, toSign] = [input.text('wrapped'), input.text('to-sign')]
  const files: Record<string, string> = {}
  const lines: string[] = []
  if (wrapped !== undefined) {
    await writeDurable(wrapped, wrappedFor(holder, asked), { mode: 0o600 })
    files.wrapped = wrapped
    lines.push(`wrote ${wrapped}, the wrapped share of ${holder}: decrypt it in the token`)
  }
  if (toSign !== undefined) {
    using statement = await wholeStatement(input, holder, asked, undefined)
    await writeDurable(toSign, statement.reveal(), { mode: 0o600 })
    files.statement = toSign
    lines.push(
      `wrote ${toSign}: sign it in the token, then give --signature; it may hold the share`,
    )
  }
  return { json: { holder, ...files }, text: lines.join('\n') }
}

/** The statement with its last line: an approval, or the share from the key, a block or a file. */
async function wholeStatement(
  input: Input,
  holder: string,
  asked: Asked,
  key: KeyObject | undefined,
): Promise<Secret> {
  const { statement, sealed } = asked
  if (/^kind (manifest|dismissal)$/m.test(statement))
    return Secret.copy(`${statement}${approval}\n`)
  const wrapped = wrappedFor(holder, asked)
  using share =
    key === undefined ? await shareFromToken(input, wrapped) : unwrap(key, holder, wrapped)
  checkUnwrapped(sealed, holder, share, useIn(statement, holder))
  return Secret.copy(`${statement}${shareAnswer(share)}\n`)
}

function wrappedFor(holder: string, { sealed }: Asked): Buffer {
  const request = holderRequests(sealed).find(({ name }) => name === holder)
  if (request !== undefined) return request.wrapped
  throw cliFault('cli.digest_differs', `what is asked for has no share of ${holder}`, {
    hint: 'the request is for another holder: compare its names',
  })
}

/** What the share must be for, by the statement that the holder signs with it. */
function useIn(statement: string, holder: string): SealedUse {
  if (/^kind proof$/m.test(statement)) return { purpose: 'proof', of: holder }
  return { purpose: 'coordinator', of: /^cluster (.*)$/m.exec(statement)?.[1] ?? '' }
}

/** What a token gave: a block that is still padded, or the share. The file's bytes are wiped here. */
async function shareFromToken(input: Input, wrapped: Buffer): Promise<Secret> {
  const block = input.text('raw-block')
  if (block !== undefined) {
    using padded = Secret.take(await readBounded(block, largestBlock))
    return removeOaep(padded, wrapped.length) // an RSA ciphertext is as long as its modulus
  }
  const file = input.text('share')
  if (file === undefined)
    throw cliFault('cli.usage', 'this ceremony needs the share: give --raw-block or --share', {
      hint: 'decrypt what --wrapped FILE writes in the token, as docs/operator/holders.md says',
    })
  const share = Secret.take(await readBounded(file, largestBlock))
  if (share.reveal().length === 32) return share
  share[Symbol.dispose]()
  throw cliFault('cli.share_malformed', `${file} is not a share of 32 bytes`, {
    hint: 'a token that decrypts without padding gives a block: use --raw-block',
  })
}

async function keyFrom(input: Input, context: Context, holder: string): Promise<KeyObject> {
  const file = input.requiredText('key')
  const key = await readPrivateKey(holder, file, input, context)
  if (key.asymmetricKeyType === 'rsa') return key
  throw cliFault(
    'cli.holder_key_unfit',
    `the key of ${holder} is of type ${key.asymmetricKeyType}, and holders of a coordinator have RSA keys`,
    { hint: `make one: holdfast holder keygen ${holder} --type rsa3072` },
  )
}

function unwrap(key: KeyObject, holder: string, wrapped: Buffer): Secret {
  const options = { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }
  try {
    return Secret.take(privateDecrypt(options, wrapped))
  } catch {
    throw cliFault('cli.share_malformed', `the share of ${holder} does not open with this key`, {
      hint: `is it the key of ${holder}? its public half: openssl pkey -in ${holder}.key -pubout`,
    })
  }
}
