import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { Secret } from '@holdfast/base'

/** Argon2id, RFC 9106 second recommended option: 64 MiB, 3 passes, 4 lanes. */
const cost = { memory: 65_536, passes: 3, parallelism: 4, tagLength: 32 }

const derive = promisify(argon2)

/** `argon2id$m$t$p$salt$tag`, salt and tag in base64url. */
export async function hashPassword(password: Secret): Promise<string> {
  const salt = randomBytes(16)
  const tag = await derive('argon2id', { ...cost, message: password.reveal(), nonce: salt })
  const { memory, passes, parallelism } = cost
  return [
    'argon2id',
    memory,
    passes,
    parallelism,
    salt.toString('base64url'),
    tag.toString('base64url'),
  ].join('$')
}

/** A hash of nothing that anybody knows: unknown users cost as much as known ones. */
export const noPassword = `argon2id$${cost.memory}$${cost.passes}$${cost.parallelism}$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA`

/** Compares in constant time with what `hashPassword` gave. */
export async function checkPassword(password: Secret, stored: string): Promise<boolean> {
  const [kind, memory, passes, parallelism, salt = '', tag = ''] = stored.split('$')
  const expected = Buffer.from(tag, 'base64url')
  if (kind !== 'argon2id' || expected.length !== cost.tagLength) return false
  const options = {
    memory: Number(memory),
    passes: Number(passes),
    parallelism: Number(parallelism),
    tagLength: cost.tagLength,
  }
  const found = await derive('argon2id', {
    ...options,
    message: password.reveal(),
    nonce: Buffer.from(salt, 'base64url'),
  })
  return timingSafeEqual(found, expected)
}
