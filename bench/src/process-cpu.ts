import { readdirSync, readFileSync } from 'node:fs'

// Processor time of a server from the outside, for any program: what the kernel has counted for the
// process, everything below it, and every child they have waited for (proc(5), /proc/PID/stat).

/** One process, times in clock ticks. */
export interface ProcessTimes {
  readonly pid: number
  readonly parent: number
  /** User and system time of its own. */
  readonly own: number
  /** The same of the children it has waited for. */
  readonly children: number
}

/** A clock tick in /proc: USER_HZ is 100 on every Linux architecture that Node runs on. */
const tickMicros = 10_000

/** Reads one line of /proc/PID/stat. The name in parentheses may itself hold blanks and parentheses. */
export function parseStat(line: string): ProcessTimes {
  const rest = line.slice(line.lastIndexOf(')') + 2).split(' ')
  const field = (number: number): number => Number(rest[number - 3])
  return {
    pid: Number.parseInt(line, 10),
    parent: field(4),
    own: field(14) + field(15),
    children: field(16) + field(17),
  }
}

/** `root` and everything below it. */
export function treeOf(processes: readonly ProcessTimes[], root: number): ProcessTimes[] {
  const found = processes.filter(({ pid }) => pid === root)
  for (const { pid } of found) found.push(...processes.filter(({ parent }) => parent === pid))
  return found
}

/** Every process that can be seen now; one that ends meanwhile is left out. */
function allProcesses(): ProcessTimes[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .flatMap((name) => {
      try {
        return [parseStat(readFileSync(`/proc/${name}/stat`, 'latin1'))]
      } catch {
        return [] // it has ended since
      }
    })
}

/** Processor time so far, in microseconds, and the number of processes, of a process and all below. */
export function processorTime(root: number): { micros: number; processes: number } {
  const tree = treeOf(allProcesses(), root)
  const ticks = tree.reduce((sum, { own, children }) => sum + own + children, 0)
  return { micros: ticks * tickMicros, processes: tree.length }
}

/** Processor time, in microseconds, of the programs that this process has run to their end. */
export function childrenTime(): number {
  return parseStat(readFileSync('/proc/self/stat', 'latin1')).children * tickMicros
}
