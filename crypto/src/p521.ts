import { cryptoFault } from './faults.ts'
import { instantiateP521, type P521Core, p521Size, preparedLength } from './p521-core.ts'

/** An affine point of P-521: two coordinates of 66 bytes, big-endian. */
export interface P521Point {
  readonly x: Uint8Array
  readonly y: Uint8Array
}

/** A P-521 private scalar prepared for multiplications in time that does not depend on it. */
export interface P521Multiplier {
  /**
   * scalar * (x, y), in fresh arrays. The point is checked before, the result after.
   * @throws Fault crypto.point_invalid when the point, or the result of a faulty machine, is off the curve
   */
  multiply(x: Uint8Array, y: Uint8Array): P521Point
  /** Overwrites the prepared scalar; the multiplier is of no use afterwards. */
  dispose(): void
}

/**
 * The process's one instance, made at the first use: prepared scalars live in their multipliers and
 * nothing secret stays in its memory between calls, so any number of keys share it.
 */
const sharedCore = (() => {
  let core: P521Core | undefined
  return () => {
    core ??= instantiateP521()
    return core
  }
})()

/**
 * Prepares a scalar, 66 bytes, big-endian, which is copied.
 * @throws Fault crypto.jwk_malformed when it is not in [1, n-1]
 */
export function p521Multiplier(scalar: Uint8Array): P521Multiplier {
  if (scalar.length !== p521Size) {
    throw cryptoFault('crypto.jwk_malformed', `a P-521 private key has ${p521Size} bytes`)
  }
  const core = sharedCore()
  core.memory.set(scalar, core.at.scalar)
  const prepared = new Uint8Array(preparedLength)
  const inRange = core.prepare()
  const windows = core.memory.subarray(core.at.windows, core.at.windows + preparedLength)
  prepared.set(windows)
  windows.fill(0)
  if (!inRange) {
    prepared.fill(0)
    throw cryptoFault('crypto.jwk_malformed', "the private key is out of P-521's range")
  }
  let disposed = false
  return {
    multiply: (x, y) => {
      if (disposed) throw cryptoFault('crypto.jwk_malformed', 'a wiped private key was used')
      writePoint(core, x, y)
      windows.set(prepared)
      core.multiply()
      return readPoint(core)
    },
    dispose: () => {
      disposed = true
      prepared.fill(0)
    },
  }
}

/** Whether two 66-byte coordinates are below p and satisfy the curve's equation. Public values only. */
export function isOnP521(x: Uint8Array, y: Uint8Array): boolean {
  if (x.length !== p521Size || y.length !== p521Size) return false
  const core = sharedCore()
  write(core, core.at.x, x)
  write(core, core.at.y, y)
  return core.isOnCurve()
}

function writePoint(core: P521Core, x: Uint8Array, y: Uint8Array): void {
  write(core, core.at.x, x)
  write(core, core.at.y, y)
  if (!core.isOnCurve()) {
    throw cryptoFault('crypto.point_invalid', 'the point is not on P-521')
  }
}

function readPoint(core: P521Core): P521Point {
  const onCurve = core.isOnCurve()
  const result = { x: take(core, core.at.x), y: take(core, core.at.y) }
  if (!onCurve) {
    throw cryptoFault('crypto.point_invalid', 'a computed point is not on P-521', {
      hint: 'the processor or memory may be faulty: do not use this reply',
    })
  }
  return result
}

/** A copy of the coordinate at `address`, which is wiped: on a client the result is a secret. */
function take(core: P521Core, address: number): Uint8Array {
  const coordinate = core.memory.slice(address, address + p521Size)
  core.memory.fill(0, address, address + p521Size)
  return coordinate
}

function write(core: P521Core, address: number, coordinate: Uint8Array): void {
  if (coordinate.length !== p521Size) {
    throw cryptoFault('crypto.point_invalid', `a P-521 coordinate has ${p521Size} bytes`)
  }
  core.memory.set(coordinate, address)
}
