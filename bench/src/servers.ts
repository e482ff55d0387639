import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort, programMissing, startProgram } from '@holdfast/base'
import type { Target } from './load-plan.ts'

// The servers measured, each a process tree of its own. `base` starts programs that say when they
// are ready; tangd and the programs that listen for it say nothing, so they are asked.

export interface RunningServer extends Target, AsyncDisposable {}

/** A server started, or why it cannot be. */
export type Peer = { server: RunningServer } | { missing: string }

const tangdProgram = '/usr/libexec/tangd'

/** Ours can be administered as well. */
export interface OurServer extends RunningServer {
  readonly adminSocket: string
}

/**
 * Starts our key server with the given number of server processes, 0 for none besides the first, and
 * no limit per address.
 */
export async function startOurs(directory: string, workers: number): Promise<OurServer> {
  const main = fileURLToPath(new URL('main.ts', import.meta.resolve('@holdfast/keyserver')))
  const options = { directory, workers, rate: 0, log: 'error', port: 0 }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  const { running, line } = await startProgram(process.execPath, [main, ...args], (text) =>
    text.startsWith('{"ready":true'),
  )
  // The line is the server's documented announcement.
  const { port, adminSocket } = JSON.parse(line) as { port: number; adminSocket: string }
  const { pid } = running
  return { name: 'ours', port, pid, adminSocket, [Symbol.asyncDispose]: () => stop(running) }
}

async function stop(running: AsyncDisposable): Promise<void> {
  await running[Symbol.asyncDispose]()
}

/** What listens for tangd, in the order of preference: the faster one is the fairer one. */
const listeners = [
  {
    name: 'systemd-socket-activate',
    path: '/usr/bin/systemd-socket-activate',
    args: (port: number, command: readonly string[]) => [
      '--accept',
      '--inetd',
      `--listen=127.0.0.1:${port}`,
      ...command,
    ],
  },
  {
    name: 'socat',
    path: '/usr/bin/socat',
    args: (port: number, command: readonly string[]) => [
      `TCP4-LISTEN:${port},bind=127.0.0.1,fork,reuseaddr,backlog=4096`,
      `EXEC:${command.join(' ')},nofork`,
    ],
  },
] as const

/** What starts tangd for each connection here. */
export function tangdListener(): (typeof listeners)[number] {
  const found = listeners.find(({ path }) => existsSync(path))
  if (found === undefined) throw programMissing('socat')
  return found
}

/**
 * Starts tangd the way distributions run it: executed for each connection, with the connection as
 * its standard input and output, as systemd's tangd@.service with Accept=true does.
 */
export async function startTangdExec(directory: string): Promise<RunningServer> {
  if (!existsSync(tangdProgram)) throw programMissing('tangd')
  const port = await freePort()
  const listener = tangdListener()
  const server = await startListening(
    'tangd-exec',
    listener.path,
    listener.args(port, [tangdProgram, directory]),
    port,
  )
  if ('missing' in server) throw new Error(server.missing)
  return server.server
}

/**
 * Starts `tangd -l`, one process that forks for each connection, where tangd has that: version 12 and
 * later. It listens on every interface, for as long as the bench runs, with throw-away keys.
 */
export async function startTangdFork(directory: string, program = tangdProgram): Promise<Peer> {
  const port = await freePort()
  const args = ['-l', '-p', String(port), directory]
  const peer = await startListening('tangd-fork', program, args, port)
  return 'missing' in peer
    ? { missing: `tangd here has no fork mode (tangd -l ended: ${peer.missing})` }
    : peer
}

async function startListening(
  name: string,
  program: string,
  args: readonly string[],
  port: number,
): Promise<Peer> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let lastLine = ''
  child.stderr.on('data', (chunk: Buffer) => {
    lastLine = chunk.toString('utf8').trim().split('\n').at(-1) ?? lastLine
  })
  for (let attempt = 0; attempt < 1200; attempt += 1) {
    if (child.exitCode !== null) return { missing: lastLine || `exit code ${child.exitCode}` }
    if (await answers(port)) {
      return {
        server: { name, port, pid: child.pid ?? 0, [Symbol.asyncDispose]: () => ended(child) },
      }
    }
    await sleep(50)
  }
  await ended(child)
  throw new Error(`${name} did not listen on port ${port}: ${lastLine}`)
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
