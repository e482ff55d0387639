/**
 * Looks for a dependence of the P-521 core's running time on the private scalar, after Reparaz,
 * Balasch and Verbauwhede, "Dude, is my code constant time?" (DATE 2017): one fixed scalar against
 * random ones, samples in random order, Welch's t on all samples and on those below a percentile.
 *
 * |t| above 4.5 that comes back with the same sign in other rounds is a leak; below it nothing was
 * found with this many samples, which is not a proof. The last line is a control: an implementation
 * known to leak (noble's multiplyUnsafe) must stand out, or the machine is too noisy to tell.
 *
 * node bench/src/constant-time.ts [samples per class and round] [rounds]
 */

import { randomBytes, randomInt } from 'node:crypto'
import { p521Multiplier } from '@holdfast/crypto'
import { p521 } from '@noble/curves/nist.js'
import { Moments, welchT } from './welch.ts'

const { n } = p521.Point.CURVE()

/** Objects per class: both classes touch equally many, so that caches treat them alike. */
const POOL = 256

/** Samples above these percentiles of both classes together are left out in turn. */
const PERCENTILES = [1, 0.95, 0.75, 0.5]

type Operation = () => void

interface Case {
  name: string
  samples: number
  fixed: Operation[]
  random: Operation[]
}

interface Reading {
  name: string
  /** Samples per class. */
  samples: number
  /** Median nanoseconds per class. */
  fixed: number
  random: number
  /** One t for each of `PERCENTILES`. */
  t: number[]
}

function toBytes(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(132, '0'), 'hex')
}

function randomScalar(): bigint {
  return 1n + (BigInt(`0x${randomBytes(80).toString('hex')}`) % (n - 1n))
}

/** Takes the samples of both classes in random order; returns nanoseconds. */
function sample({ samples, fixed, random }: Case): [number[], number[]] {
  const classes: [number[], number[]] = [[], []]
  const remaining = [samples, samples]
  while (remaining[0] !== 0 || remaining[1] !== 0) {
    const drawn = randomInt(2)
    const index = remaining[drawn] === 0 ? 1 - drawn : drawn
    const operation = (index === 0 ? fixed : random)[randomInt(POOL)]
    const start = process.hrtime.bigint()
    operation?.()
    classes[index === 0 ? 0 : 1].push(Number(process.hrtime.bigint() - start))
    remaining[index] = (remaining[index] ?? 0) - 1
  }
  return classes
}

function moments(samples: number[], limit: number): Moments {
  const result = new Moments()
  for (const value of samples) if (value <= limit) result.add(value)
  return result
}

function quantile(sorted: number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0
}

function read(subject: Case): Reading {
  const [fixed, random] = sample(subject)
  const ascending = (values: number[]) => values.toSorted((a, b) => a - b)
  const all = ascending([...fixed, ...random])
  return {
    name: subject.name,
    samples: subject.samples,
    fixed: quantile(ascending(fixed), 0.5),
    random: quantile(ascending(random), 0.5),
    t: PERCENTILES.map((part) => {
      const limit = quantile(all, part)
      return welchT(moments(fixed, limit), moments(random, limit))
    }),
  }
}

function pool(make: () => Operation): Operation[] {
  return Array.from({ length: POOL }, make)
}

/** The core's scalars under test: sparse, dense, at the ends, even and odd. */
function coreCases(samples: number): Case[] {
  const { x, y } = p521.Point.BASE.multiply(randomScalar()).toAffine()
  const [pointX, pointY] = [toBytes(x), toBytes(y)]
  const operation = (scalar: bigint): Operation => {
    const multiplier = p521Multiplier(toBytes(scalar))
    return () => {
      multiplier.multiply(pointX, pointY)
    }
  }
  const random = pool(() => operation(randomScalar()))
  const scalars = { 'd = 3': 3n, 'd = 2': 2n, 'd = n - 1': n - 1n, 'd = 2^520': 1n << 520n }
  return [
    { name: 'random d', samples, fixed: pool(() => operation(randomScalar())), random },
    ...Object.entries(scalars).map(([name, scalar]) => ({
      name,
      samples,
      fixed: pool(() => operation(scalar)),
      random,
    })),
  ]
}

function control(samples: number): Case {
  const point = p521.Point.BASE.multiply(randomScalar())
  const operation = (scalar: bigint): Operation => {
    return () => {
      point.multiplyUnsafe(scalar)
    }
  }
  return {
    name: 'control: d = 2^520 + 1',
    samples,
    fixed: pool(() => operation((1n << 520n) + 1n)),
    random: pool(() => operation(randomScalar())),
  }
}

function format({ name, samples, fixed, random, t }: Reading): string {
  const medians = [fixed, random].map((value) => (value / 1000).toFixed(1).padStart(9)).join('')
  return `${name.padEnd(24)}${String(samples).padStart(8)}${medians}${t.map((value) => value.toFixed(2).padStart(8)).join('')}`
}

/** Prints a line for each case and round; `samples` are per class and round. */
export function reportConstantTime(
  samples: number,
  rounds: number,
  print: (line: string) => void,
): void {
  const cases = coreCases(samples)
  // Optimized code from here on: neither class pays for compilation.
  for (const { random } of cases) for (const operation of random) operation()
  const columns = PERCENTILES.map((part) => `t ${100 * part}%`.padStart(8)).join('')
  print(`${'fixed class'.padEnd(24)}${'samples'.padStart(8)}  fixed us  rand us${columns}`)
  for (let round = 0; round < rounds; round += 1) {
    for (const subject of cases) print(format(read(subject)))
  }
  print(format(read(control(Math.min(samples, 300)))))
}

if (import.meta.main) {
  const [samples = '3000', rounds = '3'] = process.argv.slice(2)
  reportConstantTime(Number(samples), Number(rounds), console.log)
}
