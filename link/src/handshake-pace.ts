import type { Server } from 'node:https'
import type { Socket } from 'node:net'
import { clientOf, sourceOf } from './source-of.ts'

// A handshake costs a server some milliseconds of processor time. When a fleet comes back all at once,
// doing all of them side by side means that none is done before its client has given up, and all of
// that work is lost, again and again. So only some are under way at a time, the others wait in their
// order, and who has waited so long that the client is about to give up is let go untouched: a
// connection that is begun is one that can still be finished. One source after the other has its turn,
// because somebody who makes connections by the thousand and says nothing has them all from somewhere.

export interface PaceOptions {
  /**
   * Handshakes under way. Enough to keep the processor busy over slow lines: 256 of 3 ms each are
   * done in less than a second.
   */
  atOnce?: number
  /** Milliseconds after which a handshake that is not done makes room for the next; it goes on. */
  share?: number
  /** Milliseconds that a connection waits: less than the 10 000 that agents wait for a handshake. */
  patience?: number
  /** Connections that wait; of more, the newest of whichever source has the most is closed at once. */
  most?: number
}

interface Waiting {
  socket: Socket
  since: number
}

type OnConnection = (this: Server, socket: Socket) => void

/** Paces the handshakes of a TLS server from now on, until disposed. */
export function paceHandshakes(server: Server, options: PaceOptions = {}): Disposable {
  return new Pace(server, options)
}

class Pace implements Disposable {
  readonly #server: Server
  readonly #options: Required<PaceOptions>
  /** What the server itself does with a connection: begin the handshake. */
  readonly #begin: OnConnection[]
  readonly #queue = new TurnQueue()
  /** By the client's address and port: the server tells of the end with another object. */
  readonly #underWay = new Map<string, NodeJS.Timeout>()
  readonly #arrived = (socket: Socket): void => this.#take(socket)
  readonly #secured = (socket: Socket): void => this.#leave(clientOf(socket))
  readonly #failed = (_: Error, socket: Socket): void => this.#leave(clientOf(socket))

  constructor(server: Server, options: PaceOptions) {
    this.#server = server
    this.#options = { atOnce: 256, share: 1_000, patience: 8_000, most: 4_096, ...options }
    // They are the server's own, which take a socket.
    this.#begin = server.listeners('connection') as OnConnection[]
    for (const listener of this.#begin) server.off('connection', listener)
    server.on('connection', this.#arrived)
    server.on('secureConnection', this.#secured)
    server.on('tlsClientError', this.#failed)
  }

  [Symbol.dispose](): void {
    this.#server.off('connection', this.#arrived)
    this.#server.off('secureConnection', this.#secured)
    this.#server.off('tlsClientError', this.#failed)
    for (const listener of this.#begin) this.#server.on('connection', listener)
    for (const timer of this.#underWay.values()) clearTimeout(timer)
    this.#underWay.clear()
    for (const { socket } of this.#queue.drain()) socket.destroy()
  }

  #take(socket: Socket): void {
    const { atOnce, most } = this.#options
    if (this.#underWay.size < atOnce) this.#start(socket)
    else {
      socket.on('error', ignore)
      this.#queue.push({ socket, since: performance.now() })
      if (this.#queue.size > most) this.#queue.dropNewest()?.socket.destroy()
    }
  }

  #start(socket: Socket): void {
    const name = clientOf(socket)
    const timer = setTimeout(() => this.#leave(name), this.#options.share)
    this.#underWay.set(name, timer)
    socket.once('close', () => this.#leave(name))
    for (const listener of this.#begin) listener.call(this.#server, socket)
  }

  /** One is done, or has had its time: the next ones begin. */
  #leave(name: string): void {
    clearTimeout(this.#underWay.get(name))
    if (!this.#underWay.delete(name)) return
    const { atOnce, patience } = this.#options
    while (this.#underWay.size < atOnce) {
      const waiting = this.#queue.next()
      if (waiting === undefined) return
      const { socket, since } = waiting
      if (performance.now() - since > patience) socket.destroy()
      else if (!socket.destroyed) this.#start(socket)
      socket.off('error', ignore)
    }
  }
}

/** Those who wait, by source; the sources take turns. */
class TurnQueue {
  readonly #sources = new Map<string, Waiting[]>()
  size = 0

  push(waiting: Waiting): void {
    const source = sourceOf(waiting.socket.remoteAddress ?? '')
    const own = this.#sources.get(source)
    if (own === undefined) this.#sources.set(source, [waiting])
    else own.push(waiting)
    this.size += 1
  }

  /** The first of the source whose turn it is, which then has to wait for all others. */
  next(): Waiting | undefined {
    for (const [source, own] of this.#sources) {
      const waiting = own.shift()
      this.#sources.delete(source)
      if (own.length > 0) this.#sources.set(source, own)
      this.size -= 1
      return waiting
    }
    return undefined
  }

  /** Takes the newest of whichever source has the most; of several, of the one that waits longest for its turn. */
  dropNewest(): Waiting | undefined {
    let [source, most]: [string, Waiting[]] = ['', []]
    for (const [each, own] of this.#sources)
      if (own.length >= most.length) [source, most] = [each, own]
    const waiting = most.pop()
    if (most.length === 0) this.#sources.delete(source)
    if (waiting !== undefined) this.size -= 1
    return waiting
  }

  drain(): Waiting[] {
    const all = [...this.#sources.values()].flat()
    this.#sources.clear()
    this.size = 0
    return all
  }
}

/** A client that goes while it waits is nothing to report. */
function ignore(): void {}
