import { createPublicKey, verify } from 'node:crypto'
import { isFault, Secret } from '@holdfast/base'
import type { CeremonyKind } from '@holdfast/protocol'
import { ceremonyFault } from './ceremony-faults.ts'

// What a holder signs. Plain text with one fact a line, so that it can be read, made with `echo`, and
// signed with `openssl dgst -sha256 -sign`. It binds the answer to this cluster, this ceremony and this
// state, so an answer can never be used twice or elsewhere.

export interface StatementFacts {
  cluster: string
  ceremony: string
  kind: CeremonyKind | 'proof'
  nonce: string
  /** Digest of what is being recovered or approved. */
  digest: string
  generation: number
  holder: string
  expires: number
}

const heading = 'holdfast-answer 1'
const shareLine = /^share ([0-9a-f]{64})$/

/** The lines above the answer; the last line is added by the holder. */
export function statementText(facts: StatementFacts): string {
  const { cluster, ceremony, kind, nonce, digest, generation, holder, expires } = facts
  const lines = [
    heading,
    `cluster ${cluster}`,
    `ceremony ${ceremony}`,
    `kind ${kind}`,
    `nonce ${nonce}`,
  ]
  return [
    ...lines,
    `digest ${digest}`,
    `generation ${generation}`,
    `holder ${holder}`,
    `expires ${expires}`,
    '',
  ].join('\n')
}

/** The last line that approves without a share. */
export const approval = 'approve'

/** The last line that hands in a content key. */
export function shareAnswer(contentKey: Secret): string {
  return `share ${contentKey.reveal().toString('hex')}`
}

export interface Answer {
  /** The content key, or undefined for an approval. */
  contentKey?: Secret
}

/**
 * Checks a signed statement against what was asked.
 * @throws Fault ceremony.signature_invalid, .answer_foreign, .answer_stale, .expired, .answer_malformed
 */
export function readStatement(
  bytes: Buffer,
  signature: Buffer,
  publicKey: string,
  expected: StatementFacts,
  now: number,
): Answer {
  if (bytes.length > 4096)
    throw ceremonyFault('ceremony.answer_malformed', 'the statement is too long')
  if (!signedBy(bytes, signature, publicKey)) {
    throw ceremonyFault(
      'ceremony.signature_invalid',
      `the signature is not by the key of holder ${expected.holder}`,
      {
        hint: 'sign the whole statement with the holder key: openssl dgst -sha256 -sign KEY -out SIGNATURE STATEMENT',
      },
    )
  }
  const text = bytes.toString('utf8')
  const stated = factsOf(text)
  if (
    stated.cluster !== expected.cluster ||
    stated.ceremony !== expected.ceremony ||
    stated.kind !== expected.kind ||
    stated.holder !== expected.holder
  ) {
    throw ceremonyFault(
      'ceremony.answer_foreign',
      'the answer belongs to another cluster, ceremony or holder',
    )
  }
  if (
    stated.nonce !== expected.nonce ||
    stated.digest !== expected.digest ||
    stated.generation !== String(expected.generation)
  ) {
    throw ceremonyFault('ceremony.answer_stale', 'the answer was made for an earlier state', {
      hint: 'fetch the request again: holdfast holder request',
    })
  }
  if (now > expected.expires)
    throw ceremonyFault('ceremony.expired', 'the ceremony has expired', { hint: 'begin a new one' })
  return answerOf(text, expected)
}

function answerOf(text: string, expected: StatementFacts): Answer {
  const head = statementText(expected)
  if (!text.startsWith(head))
    throw ceremonyFault('ceremony.answer_malformed', 'the statement was altered')
  const last = text.slice(head.length).trimEnd()
  if (last === approval) return {}
  const share = shareLine.exec(last)?.[1]
  if (share === undefined)
    throw ceremonyFault(
      'ceremony.answer_malformed',
      'the last line is neither a share nor an approval',
    )
  return { contentKey: Secret.take(Buffer.from(share, 'hex')) }
}

function factsOf(text: string): Record<string, string | undefined> {
  const lines = text.split('\n')
  if (lines[0] !== heading)
    throw ceremonyFault('ceremony.answer_malformed', 'this is not an answer')
  return Object.fromEntries(
    lines
      .slice(1, 9)
      .map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
  )
}

/** RSA PKCS#1 v1.5 or ECDSA in DER, both with SHA-256. */
function signedBy(bytes: Buffer, signature: Buffer, publicKey: string): boolean {
  try {
    return verify('sha256', bytes, createPublicKey(publicKey), signature)
  } catch (error) {
    if (isFault(error)) throw error
    return false
  }
}
