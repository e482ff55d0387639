import { createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ensureDirectory, type Secret, writeDurable } from '@holdfast/base'
import { thumbprint } from '@holdfast/crypto'
import {
  answerRecoveryRequest,
  parseRecoveryRequest,
  readPublicKey,
  requestDigest,
} from '@holdfast/seal'
import { applyAnswer, applyPassphrase, exportRequest } from '@holdfast/vault'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { readPrivateKey } from './holders.ts'
import type { Input } from './input.ts'
import { joinText } from './parts.ts'
import { showPictures } from './picture.ts'
import { pinsFrom, timeoutOf } from './pins.ts'
import { readInput, readSecretText } from './streams.ts'
import { unlockedText } from './vault-read-actions.ts'
import { askPassphrase, passphraseFrom, vaultDepsFrom, volumeFrom } from './volume.ts'

const messageLimit = 4 * 1024 * 1024

/** `holdfast vault export-request` */
export async function exportAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const keyslot = input.count('keyslot', 0, 31)
  const technician = await technicianPublicKey(input, context)
  const exported = await exportRequest(deps, volumeFrom(input), technician, {
    ...(keyslot === undefined ? {} : { keyslot }),
  })
  const pictures = await showPictures(exported.request, input, context)
  const told = `digest ${exported.digest} (keyslot ${exported.keyslot})`
  return await deliverText(exported.request, { ...exported, pictures }, told, input, context)
}

/** `holdfast recover answer` */
export async function answerAction(input: Input, context: Context): Promise<Outcome> {
  const request = parseRecoveryRequest(await readParts(input.words(0), 'the request'))
  const digest = requestDigest(request)
  await confirmDigest(digest, input, context)
  const pins = await pinsFrom(input, context)
  const answer = await answerRecoveryRequest(pins, request, {
    timeout: timeoutOf(input),
    signal: context.signal,
  })
  const pictures = await showPictures(answer, input, context)
  return await deliverText(answer, { answer, digest, pictures }, `digest ${digest}`, input, context)
}

/**
 * The answer is for whoever made the request, so a request that was replaced on the way would open the
 * volume to somebody else: the digest that the technician reads out tells them apart, before anything is
 * answered.
 * @throws Fault cli.digest_differs, cli.digest_unconfirmed
 */
async function confirmDigest(digest: string, input: Input, context: Context): Promise<void> {
  const expected = input.text('digest')
  if (expected === digest) return
  if (expected !== undefined) {
    throw cliFault('cli.digest_differs', `the request's digest is ${digest}, not ${expected}`, {
      hint: 'it is not the request that the technician sent: ask for it again',
    })
  }
  const question = `The request's digest is ${digest}. Does the technician read out the same?`
  const said = await context.terminal?.confirm(question, context.signal)
  if (said === true) return
  const why = said === undefined ? 'nobody is there to compare it' : 'it was not confirmed'
  throw cliFault('cli.digest_unconfirmed', `the request's digest is ${digest}: ${why}`, {
    hint: `when the technician reads out the same: --digest ${digest}; nothing was answered`,
  })
}

/** `holdfast vault apply-answer` */
export async function applyAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const [volume, name] = [volumeFrom(input), input.text('name')]
  const mapping = { testOnly: input.flag('test'), ...(name === undefined ? {} : { name }) }
  using typed = await passphraseFrom(input, context)
  const unlocked =
    typed === undefined
      ? await applyAnswer(deps, volume, await readParts(input.words(1), 'the answer'), {
          ...mapping,
          request: await readParts(input.texts('request'), 'the request', '--request'),
          technician: await technicianPrivateKey(input, context),
        })
      : await applyPassphrase(deps, volume, typed, mapping)
  const next = 'the keyslot is marked: holdfast vault maintain replaces its passphrase'
  return { json: unlocked, text: `${unlockedText(unlocked)}\n${next}` }
}

/** `holdfast holder keygen` */
export async function keygenAction(input: Input, context: Context): Promise<Outcome> {
  const name = input.requiredWord(0, 'NAME')
  if (!/^[\p{L}\p{N}][\p{L}\p{N} .@_-]{0,63}$/u.test(name)) {
    throw cliFault('cli.usage', `"${name}" cannot be a holder's name`)
  }
  const folder = input.text('out-dir') ?? '.'
  const [privateFile, publicFile] = [join(folder, `${name}.key`), join(folder, `${name}.pub`)]
  for (const file of [privateFile, publicFile]) await requireAbsent(file)
  using passphrase = await newKeyPassphrase(input, context)
  const { publicKey, privateKey } = await makePair(input.text('type') ?? 'rsa3072')
  const encryption =
    passphrase === undefined
      ? {}
      : { cipher: 'aes-256-cbc', passphrase: Buffer.from(passphrase.reveal()) }
  await ensureDirectory(folder)
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem', ...encryption })
  await writeDurable(privateFile, pem, { mode: 0o600 })
  const publicPem = publicKey.export({ type: 'spki', format: 'pem' })
  await writeDurable(publicFile, publicPem, { mode: 0o644 })
  const { kty = '', ...members } = publicKey.export({ format: 'jwk' })
  const kid = thumbprint({ kty, ...members })
  return {
    json: { name, privateKey: privateFile, publicKey: publicFile, thumbprint: kid },
    text: `wrote ${privateFile} (keep it) and ${publicFile} (hand it out)\nthumbprint ${kid}`,
  }
}

async function makePair(type: string): Promise<{ publicKey: KeyObject; privateKey: KeyObject }> {
  const generate = promisify(generateKeyPair)
  switch (type) {
    case 'p256':
      return await generate('ec', { namedCurve: 'P-256' })
    case 'x25519':
      return await generate('x25519')
    case 'rsa4096':
      return await generate('rsa', { modulusLength: 4096 })
    default:
      return await generate('rsa', { modulusLength: 3072 })
  }
}

async function newKeyPassphrase(input: Input, context: Context): Promise<Secret | undefined> {
  const file = input.text('passphrase-file')
  if (file !== undefined) return await readSecretText(file)
  return input.flag('ask') ? await askPassphrase(context, 'Passphrase of the new key') : undefined
}

async function requireAbsent(file: string): Promise<void> {
  if ((await stat(file).catch(() => undefined)) === undefined) return
  throw cliFault('cli.file_exists', `${file} is there already`, {
    hint: 'choose another name or --out-dir; a key that is lost cannot be made again',
  })
}

async function technicianPublicKey(input: Input, context: Context): Promise<KeyObject> {
  const file = input.requiredText('technician')
  const pem = (await readInput(file, 64 * 1024)).toString('utf8')
  if (!pem.includes('PRIVATE KEY')) return readPublicKey(pem, 'the technician')
  return createPublicKey(
    (await readPrivateKey('the technician', file, input, context))
      .export({ type: 'pkcs8', format: 'pem' })
      .toString(),
  )
}

async function technicianPrivateKey(input: Input, context: Context): Promise<KeyObject> {
  return await readPrivateKey('the technician', input.requiredText('technician'), input, context)
}

/** Reads files that hold a text or parts of it; standard input when none is named. */
async function readParts(files: readonly string[], what: string, option?: string): Promise<string> {
  if (files.length === 0 && option !== undefined)
    throw cliFault('cli.usage', `${option} is missing`)
  const texts: string[] = []
  for (const file of files.length === 0 ? ['-'] : files) {
    texts.push((await readInput(file, messageLimit)).toString('utf8'))
  }
  return joinText(texts.join('\n'), what)
}

/** Prints a text, or writes it to `--out`; what people compare goes to standard error. */
async function deliverText(
  text: string,
  json: object,
  told: string,
  input: Input,
  context: Context,
): Promise<Outcome> {
  const file = input.text('out') ?? '-'
  if (file === '-') {
    if (!context.json) context.streams.err(told)
    return { json, text }
  }
  await writeDurable(file, `${text}\n`)
  return { json: { ...json, written: file }, text: `wrote ${file}\n${told}` }
}
