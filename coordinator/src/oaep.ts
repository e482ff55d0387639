import { createHash, timingSafeEqual } from 'node:crypto'
import { Secret } from '@holdfast/base'
import { ceremonyFault } from './ceremony-faults.ts'

// Some tokens (SoftHSM 2.6 among them) decrypt RSA only without padding, or only OAEP with SHA-1. What
// they give is the padded block; the padding is taken off here. This runs on the holder's own machine,
// so the time it takes is seen by nobody else; it is kept even all the same.

const hash = 'sha256'
const hashLength = 32

/**
 * EME-OAEP decoding, RFC 8017 7.1.2 step 3, with SHA-256 for both the hash and MGF1 and no label.
 * @param block what a raw RSA decryption gives; leading zero bytes may be missing
 * @param modulusLength bytes
 * @throws Fault ceremony.share_wrong, without saying why
 */
export function removeOaep(block: Secret, modulusLength: number): Secret {
  const bytes = block.reveal()
  if (bytes.length > modulusLength || modulusLength < 2 * hashLength + 2) throw wrong()
  const encoded = Buffer.alloc(modulusLength)
  bytes.copy(encoded, modulusLength - bytes.length)
  const seed = encoded.subarray(1, 1 + hashLength)
  const data = encoded.subarray(1 + hashLength)
  mask(seed, data)
  mask(data, seed)
  try {
    return Secret.copy(messageIn(encoded[0] ?? 1, data))
  } finally {
    encoded.fill(0)
  }
}

/** XORs MGF1 (RFC 8017 B.2.1) of `from` onto `target`. */
function mask(target: Buffer, from: Buffer): void {
  for (let counter = 0, at = 0; at < target.length; counter += 1) {
    const number = Buffer.alloc(4)
    number.writeUInt32BE(counter)
    for (const byte of createHash(hash).update(from).update(number).digest()) {
      if (at === target.length) return
      target[at] = (target[at] ?? 0) ^ byte
      at += 1
    }
  }
}

/** What follows `hash of nothing ‖ zeros ‖ 1`; every byte is looked at whatever is found. */
function messageIn(first: number, data: Buffer): Buffer {
  const label = createHash(hash).digest()
  let bad = first
  if (!timingSafeEqual(data.subarray(0, hashLength), label)) bad |= 1
  let start = 0
  let looking = 1
  for (let at = hashLength; at < data.length; at += 1) {
    const byte = data[at] ?? 0
    const one = Number(byte === 1) & looking
    bad |= looking & Number(byte > 1)
    start += one * (at + 1)
    looking &= 1 - one
  }
  if ((bad | looking) !== 0) throw wrong()
  return data.subarray(start)
}

function wrong(): Error {
  return ceremonyFault('ceremony.share_wrong', 'this is not a share that was wrapped for this key')
}
