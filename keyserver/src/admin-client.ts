import { request } from 'node:http'
import { codeOf, isObject, parseJson, parseJsonObject } from '@holdfast/base'
import type { Administration } from './administration.ts'
import { keyserverFault } from './faults.ts'
import { type SentFault, unpackFault } from './messages.ts'

const timeout = 60_000

/**
 * Administers a running key server through its socket.
 * @throws (each call) Fault keyserver.admin_unreachable, and the faults of the call itself
 */
export function adminClient(socketPath: string): Administration {
  // The server is this same program; its replies have the types that its calls declare.
  const call = async <T>(name: string, body: object = {}): Promise<T> =>
    (await post(socketPath, name, body)) as T
  return {
    status: () => call('status'),
    list: () => call('list'),
    rotate: (options) => call('rotate', options),
    retire: (options) => call('retire', options),
    addPrefix: (name, options) => call('add-prefix', { name, ...options }),
    revokePrefix: (name) => call('revoke-prefix', { name }),
    markCompromised: (kids, note) => call('mark-compromised', { kids, note }),
    hold: (reason) => call('hold', { reason }),
    release: () => call('release'),
    reload: () => call('reload'),
  }
}

function post(socketPath: string, name: string, body: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath, path: `/${name}`, method: 'POST', timeout },
      (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          try {
            const text = Buffer.concat(chunks).toString('utf8')
            if (incoming.statusCode === 200) resolve(parseJson(text, 'the reply', 64_000_000))
            else reject(faultOf(text))
          } catch (error) {
            reject(error)
          }
        })
      },
    )
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within a minute')))
    outgoing.on('error', (cause) => reject(unreachable(socketPath, cause)))
    outgoing.end(JSON.stringify(body))
  })
}

function faultOf(text: string): Error {
  const value = parseJsonObject(text, 'the reply')
  const { code, kind, message } = value
  const isFaultText = [code, kind, message].every((member) => typeof member === 'string')
  if (isFaultText && isObject(value)) return unpackFault(value as unknown as SentFault) // checked above
  return keyserverFault('keyserver.admin_unreachable', 'the key server gave no usable answer')
}

function unreachable(path: string, cause: Error): Error {
  return keyserverFault(
    'keyserver.admin_unreachable',
    `no key server answers on ${path}: ${codeOf(cause) ?? cause.message}`,
    { cause, hint: 'is it running? Without it, name its directory with --directory' },
  )
}
