import {
  type Direction,
  type Figures,
  medians,
  pairwise,
  rounded,
  timesBetter,
} from './statistics.ts'

/** What one bench measured, as printed with --json. */
export interface BenchResult {
  readonly name: string
  /** Medians over the rounds. */
  readonly ours: Figures
  /** The same of each program measured beside ours; null when it could not run here, see `notes`. */
  readonly peers: Readonly<Record<string, Figures | null>>
  /** By peer: how many times better ours is, above 1 is better, from the medians and round by round. */
  readonly ratios: Readonly<Record<string, Ratios>>
  /** What a reader must know to read the figures. */
  readonly notes: readonly string[]
}

/** Ratios of medians by the names of `Comparison`, and the medians of the ratios of paired rounds. */
export interface Ratios {
  readonly [figure: string]: number | Figures
  readonly pairwise: Figures
}

/** One figure to compare: its name among the figures, its name among the ratios, what is better. */
export interface Comparison {
  readonly figure: string
  readonly ratio: string
  readonly direction: Direction
}

export const serverComparisons: readonly Comparison[] = [
  { figure: 'requestsPerSecond', ratio: 'requestsPerSecond', direction: 'more' },
  { figure: 'cpuMicrosPerRequest', ratio: 'cpu', direction: 'less' },
  { figure: 'p99', ratio: 'p99', direction: 'less' },
]

export const commandComparisons: readonly Comparison[] = [
  { figure: 'wallMs', ratio: 'wall', direction: 'less' },
  { figure: 'cpuMs', ratio: 'cpu', direction: 'less' },
]

/** Puts the rounds of ours and of each peer side by side. A peer without rounds is null. */
export function compare(
  name: string,
  ours: readonly Figures[],
  peers: Readonly<Record<string, readonly Figures[] | null>>,
  comparisons: readonly Comparison[],
  notes: readonly string[] = [],
): BenchResult {
  const measured = Object.entries(peers).flatMap(([peer, rounds]) =>
    rounds === null ? [] : [{ peer, rounds }],
  )
  const own = medians(ours)
  const of = (rounds: readonly Figures[]): Ratios => {
    const theirs = medians(rounds)
    const figure = (name: string, from: Figures) => from[name] ?? Number.NaN
    const ratios = comparisons.map(({ figure: f, ratio, direction }) => [
      ratio,
      timesBetter(figure(f, own), figure(f, theirs), direction),
    ])
    const paired = comparisons.map(({ figure: f, ratio, direction }) => [
      ratio,
      pairwise(ours, rounds, f, direction),
    ])
    return { ...Object.fromEntries(ratios), pairwise: Object.fromEntries(paired) }
  }
  return {
    name,
    ours: own,
    peers: Object.fromEntries(
      Object.entries(peers).map(([peer, rounds]) => [
        peer,
        rounds === null ? null : medians(rounds),
      ]),
    ),
    ratios: Object.fromEntries(measured.map(({ peer, rounds }) => [peer, of(rounds)])),
    notes,
  }
}

/** Adds a figure that is not a median, such as a total over all rounds. */
export function withFigure(figures: Figures, name: string, value: number): Figures {
  return { ...figures, [name]: rounded(value) }
}
