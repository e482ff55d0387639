import { createLog } from '@holdfast/base/log'
import { type Front, startFront } from './front.ts'
import { type FromWorker, packFault, type ToWorker } from './messages.ts'

const beatInterval = 1_000

/** The channel to the primary process: `process` in a worker, two ends of a pipe in a test. */
export interface Channel {
  send(message: FromWorker): void
  onMessage(receive: (message: ToWorker) => void): void
  onDisconnect(gone: () => void): void
}

/**
 * Runs one worker process: waits for the primary's settings, listens, and obeys. Resolves when told
 * to stop or when the primary is gone; a self-test failure ends it as well, and it is replaced.
 */
export async function runWorker(channel: Channel): Promise<void> {
  const waiting = new Map<number, (text: string) => void>()
  let front: Front | undefined
  let starting: Promise<void> = Promise.resolve()
  let asked = 0
  const stopped = Promise.withResolvers<void>()
  const metrics = (): Promise<string> => {
    asked += 1
    const id = asked
    channel.send({ kind: 'metrics', id })
    return new Promise((resolve) => waiting.set(id, resolve))
  }
  const start = async ({ settings, logLevel }: Extract<ToWorker, { kind: 'start' }>) => {
    const log = createLog('keyserver', logLevel, { write: (line) => process.stderr.write(line) })
    front = await startFront(settings, {
      log,
      metrics,
      onEvents: (events) => channel.send({ kind: 'events', events }),
      onFaulty: () => stopped.resolve(),
    })
    channel.send({ kind: 'ready', port: front.port, health: front.health() })
  }
  const beat = () => {
    if (front) channel.send({ kind: 'beat', gauges: front.gauges(), health: front.health() })
  }
  const obey = async (kind: 'reload' | 'collect', id: number) => {
    try {
      await starting // what it reads while starting may be from before the change
      await front?.[kind]()
      channel.send({ kind: 'done', id })
    } catch (error) {
      channel.send({ kind: 'done', id, fault: packFault(error) })
    }
    beat()
  }
  channel.onMessage((message) => {
    if (message.kind === 'start') {
      starting = start(message).catch((error: unknown) => {
        channel.send({ kind: 'failed', fault: packFault(error) })
        stopped.resolve()
      })
    } else if (message.kind === 'reload' || message.kind === 'collect') {
      void obey(message.kind, message.id)
    } else if (message.kind === 'metrics') {
      waiting.get(message.id)?.(message.text)
      waiting.delete(message.id)
    } else {
      stopped.resolve()
    }
  })
  channel.onDisconnect(() => stopped.resolve())
  const timer = setInterval(beat, beatInterval)
  await stopped.promise
  clearInterval(timer)
  await front?.[Symbol.asyncDispose]()
}

/** The channel of this process, when it was started as a worker. Signals are the primary's business. */
export function processChannel(): Channel {
  process.on('SIGINT', () => undefined)
  process.on('SIGTERM', () => undefined)
  return {
    send: (message) => {
      if (process.connected) process.send?.(message, undefined, {}, () => undefined)
    },
    // The other end is our own primary, which sends nothing else.
    onMessage: (receive) => process.on('message', (message) => receive(message as ToWorker)),
    onDisconnect: (gone) => process.on('disconnect', gone),
  }
}
