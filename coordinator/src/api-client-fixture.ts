import { request } from 'node:https'
import { TLSSocket } from 'node:tls'
import { keyId } from '@holdfast/link'

export interface Reply {
  status: number
  /** Empty when the answer is no JSON. */
  body: Record<string, unknown>
  text: string
  cookie: string
  /** The whole header, with the cookie's attributes. */
  setCookie: string
}

export type Ask = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Reply>

/** A client that accepts exactly the pinned identity, and may come from another loopback address. */
export function client(
  { port }: { port: number },
  digest: string,
  localAddress = '127.0.0.1',
): Ask {
  return (method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      const outgoing = request(
        {
          host: '127.0.0.1',
          port,
          localAddress,
          method,
          path,
          rejectUnauthorized: false, // the pin below decides
          headers: { 'content-type': 'application/json', ...headers },
          agent: false,
        },
        (incoming) => {
          const chunks: Buffer[] = []
          incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
          incoming.on('error', reject)
          incoming.on('end', () => {
            const setCookie = incoming.headers['set-cookie']?.[0] ?? ''
            const cookie = setCookie.split(';')[0] ?? ''
            const text = Buffer.concat(chunks).toString()
            const isJson = incoming.headers['content-type']?.startsWith('application/json')
            const body = isJson === true ? JSON.parse(text) : {}
            resolve({ status: incoming.statusCode ?? 0, body, text, cookie, setCookie })
          })
        },
      )
      outgoing.on('socket', (socket) => {
        socket.once('secureConnect', () => {
          const peer = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined
          if (peer === undefined || keyId(peer.publicKey) !== digest)
            outgoing.destroy(new Error('another identity'))
        })
      })
      outgoing.on('error', reject)
      outgoing.end(body === undefined ? undefined : JSON.stringify(body))
    })
}
