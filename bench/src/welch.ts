/** Count, mean and variance of one class of samples, updated one sample at a time (Welford). */
export class Moments {
  count = 0
  mean = 0
  #squares = 0

  add(sample: number): void {
    this.count += 1
    const distance = sample - this.mean
    this.mean += distance / this.count
    this.#squares += distance * (sample - this.mean)
  }

  get variance(): number {
    return this.count < 2 ? 0 : this.#squares / (this.count - 1)
  }
}

/** Welch's t between two classes: how many standard errors their means are apart. */
export function welchT(a: Moments, b: Moments): number {
  const error = Math.sqrt(a.variance / a.count + b.variance / b.count)
  return error === 0 ? 0 : (a.mean - b.mean) / error
}
