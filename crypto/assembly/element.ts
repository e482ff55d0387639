/** Field elements between their bytes and the limbs that ./field computes with. */

import { normalizeCarry } from './field'

/** Bytes of an element. */
export const ELEMENT: usize = 80

/** Bytes of a number: 66, big-endian, after 6 zero bytes that make them 9 whole words. */
export const NUMBER: usize = 72

const LIMBS = 18
const LIMB_BITS = 29
const LIMB_MASK: u64 = 0x1fffffff
const TOP_MASK: i64 = 0xfffffff

export function copy(to: usize, from: usize): void {
  memory.copy(to, from, ELEMENT)
}

/** The element of value `value`, |value| < 2^28. */
export function setSmall(element: usize, value: i32): void {
  memory.fill(element, 0, ELEMENT)
  store<i32>(element, value)
  store<i32>(element, value, 72)
}

/** At least 57 bits, from bit `from` on, of a number. */
export function bitsAt(number: usize, from: i32): u64 {
  return bswap<u64>(load<u64>(number + (64 - (from >> 3)))) >> (from & 7)
}

/** Reads a 521-bit number. */
export function decode(element: usize, number: usize): void {
  for (let limb = 0; limb < LIMBS; limb++) {
    store<u32>(element + (limb << 2), <u32>(bitsAt(number, LIMB_BITS * limb) & LIMB_MASK))
  }
  store<u64>(element, load<u64>(element), 72)
  normalizeCarry(element, element)
}

/** Carries every limb into [0, 2^29), the last into [0, 2^28); what passes 2^521 comes back. */
function carryFully(element: usize): void {
  let carry: i64 = 0
  for (let limb = 0; limb < LIMBS; limb++) {
    const at = element + (limb << 2)
    const sum = <i64>load<i32>(at) + carry
    if (limb == LIMBS - 1) {
      store<i32>(at, <i32>(sum & TOP_MASK))
      carry = sum >> (LIMB_BITS - 1)
    } else {
      store<i32>(at, <i32>(sum & <i64>LIMB_MASK))
      carry = sum >> LIMB_BITS
    }
  }
  store<i32>(element, load<i32>(element) + <i32>carry)
}

/** Makes limbs 0-17 the only representation in [0, p); the copies of limbs 0 and 1 are lost. */
function canonicalize(element: usize): void {
  // 2p is added limb by limb, which makes the number positive.
  for (let limb = 0; limb < LIMBS; limb++) {
    const at = element + (limb << 2)
    store<i32>(at, load<i32>(at) + (limb == 0 ? 0x1ffffffe : 0x1fffffff))
  }
  for (let pass = 0; pass < 2; pass++) carryFully(element)
  // The number is in [0, 2^521): only p itself is left to become 0, and p + 1 has bit 521.
  let carry: i64 = 1
  for (let limb = 0; limb < LIMBS; limb++) {
    carry = (<i64>load<i32>(element + (limb << 2)) + carry) >> (limb == LIMBS - 1 ? 28 : 29)
  }
  const keep = <i32>carry - 1
  for (let limb = 0; limb < LIMBS; limb++) {
    const at = element + (limb << 2)
    store<i32>(at, load<i32>(at) & keep)
  }
}

/** Writes the number, canonical, as 66 bytes after 6 zero bytes. */
export function encode(number: usize, element: usize): void {
  canonicalize(element)
  memory.fill(number, 0, 6)
  let pending: u64 = 0
  let count = 0
  let limb = 0
  for (let byte: usize = 0; byte < 66; byte++) {
    if (count < 8 && limb < LIMBS) {
      pending |= <u64>load<u32>(element + (limb << 2)) << count
      count += LIMB_BITS
      limb++
    }
    store<u8>(number + 71 - byte, <u8>pending)
    pending >>= 8
    count -= 8
  }
}

/** Whether a number is below p. Of public numbers. */
export function isReduced(number: usize): bool {
  let ones: u64 = load<u64>(number) | bswap<u64>(~(<u64>0x1ff))
  for (let at: usize = 8; at < NUMBER; at += 8) ones &= load<u64>(number + at)
  return bswap<u64>(load<u64>(number)) <= 0x1ff && ones != ~(<u64>0)
}

/** Whether an element is 0 modulo p; it is made canonical. */
export function isZero(element: usize): bool {
  canonicalize(element)
  let any: u32 = 0
  for (let limb = 0; limb < LIMBS; limb++) any |= load<u32>(element + (limb << 2))
  return any == 0
}

/** Negates the element when every lane of `mask` is -1, leaves it when they are 0. */
export function negateIf(element: usize, mask: v128): void {
  for (let at: usize = 0; at < ELEMENT; at += 16) {
    const limbs = v128.load(element + at)
    v128.store(element + at, i32x4.sub(v128.xor(limbs, mask), mask))
  }
}
