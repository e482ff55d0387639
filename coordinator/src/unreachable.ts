/** SQLSTATE classes and system errors of a server that is away, or that only answers reads. */
const lostConnection = /^(ECONN|EPIPE|ETIMEDOUT|ENOENT|EHOST|08|57P0|53|25006)/

/** PostgreSQL's driver has no codes for these. */
const lostMessage =
  /connection (terminated|ended|timeout|error)|not queryable|query read timeout|timeout exceeded when trying to connect/i

/** SQLite: read-only 8, I/O error 10, full 13, cannot open 14; the higher bits say where. */
const brokenFile = [8, 10, 13, 14]

/** True when the engine itself could not be reached or refused to work, whatever was asked. */
export function isUnreachable(error: unknown): boolean {
  const { code, message, errcode } = error as Record<string, unknown>
  if (typeof errcode === 'number' && brokenFile.includes(errcode & 0xff)) return true
  if (typeof code === 'string' && lostConnection.test(code)) return true
  return typeof message === 'string' && lostMessage.test(message)
}
