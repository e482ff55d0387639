// Replies as bytes. Each leaves in one write: tangd's two small writes meet Nagle's algorithm and
// delayed acknowledgements, and a reused connection then waits 40 ms for every reply.

const reasons: Readonly<Record<number, string>> = {
  200: 'OK',
  400: 'Bad Request',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  413: 'Payload Too Large',
  414: 'URI Too Long',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
}

/** A status with an empty body, as tangd answers every error. */
export function emptyReply(status: number, headers = ''): string {
  return `HTTP/1.1 ${status} ${reasons[status] ?? 'Unknown'}\r\n${headers}Content-Length: 0\r\n\r\n`
}

/** 503 with the number of seconds after which to try again (RFC 9110 section 10.2.3). */
export function busyReply(retryAfter: number): string {
  return emptyReply(503, `Retry-After: ${retryAfter}\r\n`)
}

/** A reply with a body of ASCII or Latin-1 text. */
export function textReply(status: number, type: string, body: string): string {
  const length = Buffer.byteLength(body, 'latin1')
  const head = `HTTP/1.1 ${status} ${reasons[status] ?? 'Unknown'}\r\n`
  return `${head}Content-Type: ${type}\r\nContent-Length: ${length}\r\n\r\n${body}`
}

/** The reply to GET /adv, with the media type that tangd gives. */
export function advertisementReply(jws: string): string {
  return textReply(200, 'application/jose+json', jws)
}

/** The reply to a recovery: members sorted and compact, coordinates at full width, as tangd prints it. */
export function recoveryReply(crv: string, x: string, y: string): string {
  const body = `{"alg":"ECMR","crv":"${crv}","key_ops":["deriveKey"],"kty":"EC","x":"${x}","y":"${y}"}`
  return `HTTP/1.1 200 OK\r\nContent-Type: application/jwk+json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
}

/** What a request asks for. */
export type Route =
  | { kind: 'advertisement'; space: string; thumbprint: string | undefined }
  | { kind: 'recovery'; space: string; thumbprint: string }
  | { kind: 'health' }
  | { kind: 'metrics' }
  | { kind: 'refused'; status: 404 | 405; allow?: string }

const spacePattern = /^\/+p\/+([a-z0-9][a-z0-9._-]{0,62})(\/.*)$/
const recoveryPattern = /^\/+rec\/+([0-9A-Za-z_-]+)$/
const advertisementPattern = /^\/+adv(?:\/*|\/+([0-9A-Za-z_-]+))$/

/** Routes by the raw request target, without query parsing, as tangd 11 does; below `/p/NAME` too. */
export function route(method: string, target: string): Route {
  const below = spacePattern.exec(target)
  const space = below?.[1] ?? ''
  const path = below?.[2] ?? target
  const recovery = recoveryPattern.exec(path)
  if (recovery?.[1] !== undefined) {
    if (method !== 'POST') return { kind: 'refused', status: 405, allow: 'POST' }
    return { kind: 'recovery', space, thumbprint: recovery[1] }
  }
  const advertisement = advertisementPattern.exec(path)
  if (advertisement !== null) {
    if (method !== 'GET') return { kind: 'refused', status: 405, allow: 'GET' }
    return { kind: 'advertisement', space, thumbprint: advertisement[1] }
  }
  if (target === '/healthz' || target === '/metrics') {
    if (method !== 'GET') return { kind: 'refused', status: 405, allow: 'GET' }
    return { kind: target === '/healthz' ? 'health' : 'metrics' }
  }
  return { kind: 'refused', status: 404 }
}
