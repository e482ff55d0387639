import type { CommandHandler } from './command-handler.ts'
import type { LogSource } from './logs.ts'
import type { Services } from './services.ts'

// Commands about services and what they have said.

/** Answers with how every service of the manifest stands. */
export function servicesHandler(services: Pick<Services, 'status'>): CommandHandler<'services'> {
  return {
    restart: 'unrecorded',
    run: async () => ({ services: [...(await services.status())] }),
  }
}

/** Restarts one service, alone among what changes services. */
export function restartHandler(services: Pick<Services, 'restart'>): CommandHandler<'restart'> {
  return {
    restart: 'again',
    lane: 'services',
    run: async ({ given }) => ({ service: await services.restart(given.service) }),
  }
}

/** Characters of one `output` frame; a frame holds 65 536. */
const pieceLength = 60_000

/**
 * Streams lines in pieces, each sent when the one before has arrived: a slow line slows it down, and
 * without a coordinator to listen it ends.
 */
export function logsHandler(source: LogSource): CommandHandler<'logs'> {
  return {
    restart: 'interrupted',
    run: async ({ given, signal, output }) => {
      const { lines, truncated } = await source.read(given, signal)
      let piece = ''
      for (const line of lines) {
        if (piece.length + line.length + 1 > pieceLength) {
          await output(piece)
          piece = ''
        }
        piece += `${line}\n`
      }
      if (piece !== '') await output(piece)
      return { lines: lines.length, truncated }
    },
  }
}
