/** For tests of several parts: nothing of this process runs meanwhile, as when its machine is suspended. */
export function standStill(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}
