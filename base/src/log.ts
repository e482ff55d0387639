import { type DestinationStream, type Logger, pino } from 'pino'

export type Log = Logger

/** A logger that prints one JSON line per event; time in ISO 8601, level by name. */
export function createLog(name: string, level: string, destination?: DestinationStream): Log {
  const options = {
    name,
    level,
    base: { name, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  return destination === undefined ? pino(options) : pino(options, destination)
}
