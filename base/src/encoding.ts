import { baseFault } from './faults.ts'

const alphabet = /^[A-Za-z0-9_-]*$/

/** Unpadded base64url (RFC 4648 section 5). */
export function toBase64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url')
}

/** Decodes unpadded base64url strictly: padding, other alphabets and loose bits are refused. */
export function fromBase64url(text: string, what = 'value'): Buffer {
  const bytes = Buffer.from(text, 'base64url')
  if (!alphabet.test(text) || bytes.toString('base64url') !== text) {
    throw baseFault('base.bad_encoding', `${what} is not unpadded base64url`)
  }
  return bytes
}
