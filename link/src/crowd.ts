import type { Server } from 'node:http'
import type { Server as SecureServer } from 'node:https'
import type { Socket } from 'node:net'
import { clientOf, sourceOf } from './source-of.ts'

// A bare TCP connection costs whoever makes it nothing, and a server that has room for only so many is
// shut by one machine that makes them all and says nothing. So those that have proven nothing are
// counted apart from the others, by where they come from, and when there are too many, room is made for
// the newest: the oldest goes of whoever has the most. A handshake takes some milliseconds, so what is
// old has not begun one. Turning the newest away instead would let a stranger shut out everybody who
// stands behind the same address as he does.

export interface CrowdOptions {
  /** Connections that have proven nothing, in all. */
  most: number
  /** And of one source: an IPv4 address, or 64 bits of an IPv6 one. */
  each: number
}

/**
 * Bounds the connections of a TLS server that have not done their handshake, and gives each of them
 * `within` milliseconds for it. Those that have done it count no more and are never ended here.
 */
export function boundUnsecured(
  server: SecureServer,
  { within, ...options }: CrowdOptions & { within: number },
): void {
  const crowd = new Crowd(options, within)
  server.on('connection', (socket: Socket) => crowd.enter(socket))
  // The server tells of the end of a handshake with another object, of the same client.
  server.on('secureConnection', (socket: Socket) => crowd.leave(clientOf(socket)))
}

/** The same for a server without TLS, of which every connection is a short one: all of them count. */
export function boundConnections(server: Server, options: CrowdOptions): void {
  const crowd = new Crowd(options)
  server.on('connection', (socket: Socket) => crowd.enter(socket))
}

interface Member {
  socket: Socket
  source: string
  timer: NodeJS.Timeout | undefined
}

class Crowd {
  readonly #options: CrowdOptions
  readonly #within: number | undefined
  /** By the client's address and port; the oldest first. */
  readonly #members = new Map<string, Member>()
  /** The names of one source, the oldest first. */
  readonly #sources = new Map<string, Set<string>>()

  constructor(options: CrowdOptions, within?: number) {
    this.#options = options
    this.#within = within
  }

  enter(socket: Socket): void {
    const { remoteAddress } = socket
    if (remoteAddress === undefined) {
      socket.destroy() // it has gone already
      return
    }
    const [name, source] = [clientOf(socket), sourceOf(remoteAddress)]
    this.leave(name)
    const timer =
      this.#within === undefined ? undefined : setTimeout(() => socket.destroy(), this.#within)
    const member = { socket, source, timer }
    this.#members.set(name, member)
    const own = this.#sources.get(source) ?? new Set()
    this.#sources.set(source, own.add(name))
    socket.once('close', () => {
      // By now the same client may have come again.
      if (this.#members.get(name) === member) this.leave(name)
    })
    if (own.size > this.#options.each) this.#endOldest(own)
    else if (this.#members.size > this.#options.most) this.#endOldest(this.#largest())
  }

  /** It counts no more. */
  leave(name: string): void {
    const member = this.#members.get(name)
    if (member === undefined) return
    clearTimeout(member.timer)
    this.#members.delete(name)
    const own = this.#sources.get(member.source)
    own?.delete(name)
    if (own?.size === 0) this.#sources.delete(member.source)
  }

  #endOldest(names: ReadonlySet<string>): void {
    const [name = ''] = names
    const socket = this.#members.get(name)?.socket
    this.leave(name)
    socket?.destroy()
  }

  /** Of whoever has the most. */
  #largest(): ReadonlySet<string> {
    let largest: ReadonlySet<string> = new Set()
    for (const names of this.#sources.values()) if (names.size > largest.size) largest = names
    return largest
  }
}
