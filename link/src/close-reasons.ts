/**
 * Why a session was ended, by WebSocket close code (RFC 6455 7.4.2 leaves 4000 to 4999 to
 * applications). Numbers are never given a new meaning.
 */
export const closeReasons = {
  1000: 'finished',
  1001: 'going_away',
  1006: 'connection_lost',
  4400: 'frame_invalid',
  4403: 'identity_mismatch',
  4404: 'node_unknown',
  4408: 'silent',
  4409: 'already_connected',
  4410: 'node_removed',
  4413: 'too_slow',
  4500: 'failed',
  4503: 'not_ready',
} as const
export type CloseCode = keyof typeof closeReasons
export type CloseReason = (typeof closeReasons)[CloseCode] | 'unknown'

/** What the other end, or the network, said about the end of a session. */
export interface Closed {
  code: number
  reason: CloseReason
  /** Words of the end that closed it; never a secret. */
  text: string
}

/** The end of a session by its close code; a code of somebody else's is `unknown`. */
export function closedBy(code: number, text: string): Closed {
  const reason = (closeReasons as Readonly<Record<number, CloseReason>>)[code] ?? 'unknown'
  return { code, reason, text }
}
