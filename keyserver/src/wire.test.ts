import assert from 'node:assert/strict'
import { test } from 'node:test'
import { busyReply, recoveryReply, route, textReply } from './wire.ts'

const refused = (status: number, allow?: string) => ({
  kind: 'refused',
  status,
  ...(allow === undefined ? {} : { allow }),
})

test('paths are routed as tangd routes them, below a prefix too', () => {
  const cases: [string, string, object][] = [
    ['GET', '/adv', { kind: 'advertisement', space: '', thumbprint: undefined }],
    ['GET', '/adv/', { kind: 'advertisement', space: '', thumbprint: undefined }],
    ['GET', '//adv//', { kind: 'advertisement', space: '', thumbprint: undefined }],
    ['GET', '/adv//aZ_-9', { kind: 'advertisement', space: '', thumbprint: 'aZ_-9' }],
    ['POST', '///rec///k', { kind: 'recovery', space: '', thumbprint: 'k' }],
    ['GET', '/p/web-17/adv', { kind: 'advertisement', space: 'web-17', thumbprint: undefined }],
    ['POST', '/p/web-17/rec/k', { kind: 'recovery', space: 'web-17', thumbprint: 'k' }],
    ['GET', '/healthz', { kind: 'health' }],
    ['GET', '/metrics', { kind: 'metrics' }],
    ['HEAD', '/adv', refused(405, 'GET')],
    ['POST', '/adv', refused(405, 'GET')],
    ['OPTIONS', '/adv/x', refused(405, 'GET')],
    ['GET', '/rec/x', refused(405, 'POST')],
    ['PUT', '/p/a/rec/x', refused(405, 'POST')],
    ['HEAD', '/healthz', refused(405, 'GET')],
    ['GET', '/', refused(404)],
    ['GET', '/adv?x=1', refused(404)],
    ['GET', '/adv/x/', refused(404)],
    ['GET', '/advx', refused(404)],
    ['GET', 'adv', refused(404)],
    ['GET', 'http://host/adv', refused(404)],
    ['POST', '/rec', refused(404)],
    ['POST', '/rec/', refused(404)],
    ['POST', '/rec/a.b', refused(404)],
    ['POST', '/rec/a%20b', refused(404)],
    ['GET', '/p/UPPER/adv', refused(404)],
    ['GET', '/p/../adv', refused(404)],
    ['GET', '/p//adv', refused(404)],
    ['GET', '/p/a', refused(404)],
    ['GET', '/p/a/healthz', refused(404)],
    ['GET', '/healthz/', refused(404)],
  ]
  for (const [method, target, expected] of cases) {
    assert.deepEqual(route(method, target), expected, `${method} ${target}`)
  }
})

test('replies state their length, and busy says when to come back', () => {
  assert.match(textReply(200, 'text/plain', 'h\xe9'), /Content-Length: 2\r\n\r\nh\xe9$/)
  assert.match(busyReply(7), /^HTTP\/1\.1 503 Service Unavailable\r\nRetry-After: 7\r\n/)
  const reply = recoveryReply('P-256', 'x', 'y')
  const body = reply.slice(reply.indexOf('\r\n\r\n') + 4)
  assert.deepEqual(Object.keys(JSON.parse(body)), ['alg', 'crv', 'key_ops', 'kty', 'x', 'y'])
  assert.match(reply, new RegExp(`Content-Length: ${body.length}\r\n`))
})
