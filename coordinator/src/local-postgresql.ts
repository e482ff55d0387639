import { access, chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { freePort, programMissing, run, signalProcess } from '@holdfast/base'

// A real PostgreSQL 15 of its own for a test or a drill: a cluster in a temporary directory on a free port.
// initdb refuses to run as root, so everything runs as Debian's user `postgres` then.

const programs = '/usr/lib/postgresql/15/bin'
const identity = { user: 'postgres', database: 'holdfast' }

export interface Postgres extends AsyncDisposable {
  readonly port: number
  readonly url: string
  /** SIGKILL for the server's main process; its children end when they notice. */
  crash(): Promise<void>
  /** Stops all its processes where they are, as a machine that hangs; `goOn` lets them. */
  hang(): Promise<{ goOn: () => void }>
  /** Makes a standby that every commit waits for. */
  standby(): Promise<Standby>
}

export interface Standby extends AsyncDisposable {
  readonly url: string
  promote(): Promise<void>
}

/** Runs one of PostgreSQL's programs as its own user. */
async function postgres(program: string, args: readonly string[]): Promise<string> {
  const path = join(programs, program)
  // `runuser` would hide which package is missing.
  await access(path).catch(() => Promise.reject(programMissing(path)))
  const command = [path, ...args]
  const { stdout } =
    userInfo().uid === 0
      ? await run('runuser', ['-u', identity.user, '--', ...command])
      : await run(command[0] ?? '', command.slice(1))
  return stdout.toString('utf8')
}

async function ownDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-postgresql-'))
  if (userInfo().uid !== 0) return directory
  const ids = await Promise.all(
    ['-u', '-g'].map(async (flag) => Number((await run('id', [flag, identity.user])).stdout)),
  )
  await chown(directory, ids[0] ?? 0, ids[1] ?? 0)
  return directory
}

const urlOf = (port: number) =>
  `postgresql://${identity.user}@127.0.0.1:${port}/${identity.database}`

async function launch(directory: string, port: number): Promise<void> {
  const options = `-p ${port} -k ${directory} -c listen_addresses=127.0.0.1 -c max_connections=60`
  const log = join(directory, 'log')
  await postgres('pg_ctl', ['-D', join(directory, 'data'), '-l', log, '-w', '-o', options, 'start'])
}

/** Starts it on a free port, which somebody else may take before it does. */
async function launchAnywhere(directory: string): Promise<number> {
  for (let left = 2; ; left -= 1) {
    const port = await freePort()
    try {
      await launch(directory, port)
      return port
    } catch (error) {
      if (left === 0) throw error
    }
  }
}

/** Starts a new, empty server with one database. Commits are durable, as in production. */
export async function startPostgres(): Promise<Postgres> {
  const directory = await ownDirectory()
  const data = join(directory, 'data')
  await postgres('initdb', ['-D', data, '-U', identity.user, '-A', 'trust', '--no-instructions'])
  const port = await launchAnywhere(directory)
  await postgres('createdb', [
    '-h',
    '127.0.0.1',
    '-p',
    `${port}`,
    '-U',
    identity.user,
    identity.database,
  ])
  return {
    port,
    url: urlOf(port),
    crash: async () => {
      const [pid] = (await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')
      process.kill(Number(pid), 'SIGKILL')
    },
    hang: async () => {
      const [line = ''] = (await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')
      const parent = Number(line)
      // Before its children are listed: it begins none any more.
      process.kill(parent, 'SIGSTOP')
      const children = await childrenOf(parent)
      for (const pid of children) signalProcess(pid, 'SIGSTOP')
      return {
        goOn: () => {
          for (const pid of [parent, ...children]) signalProcess(pid, 'SIGCONT')
        },
      }
    },
    standby: () => startStandby(port),
    [Symbol.asyncDispose]: async () => {
      await stop(data)
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** A process's children, as the kernel lists them. */
async function childrenOf(parent: number): Promise<number[]> {
  const path = `/proc/${parent}/task/${parent}/children`
  const children = (await readFile(path, 'utf8')).trim().split(/\s+/)
  return children.map(Number).filter((pid) => pid > 0)
}

/** A server that has been killed before has nothing left to stop. */
async function stop(data: string): Promise<void> {
  await postgres('pg_ctl', ['-D', data, '-m', 'immediate', '-w', 'stop']).catch(() => undefined)
}

async function startStandby(primary: number): Promise<Standby> {
  const directory = await ownDirectory()
  const data = join(directory, 'data')
  const from = ['-h', '127.0.0.1', '-p', `${primary}`, '-U', identity.user]
  // -R writes the connection to the primary into the standby's own settings.
  await postgres('pg_basebackup', [...from, '-D', data, '-R', '-X', 'stream', '-c', 'fast'])
  const port = await launchAnywhere(directory)
  const sql = "alter system set synchronous_standby_names = '*'"
  await postgres('psql', [...from, '-d', identity.database, '-c', sql])
  await postgres('psql', [...from, '-d', identity.database, '-c', 'select pg_reload_conf()'])
  await waitForSynchronous(from)
  return {
    url: urlOf(port),
    promote: async () => {
      // The promoted server has nobody to wait for.
      const alone = join(data, 'postgresql.auto.conf')
      await writeFile(alone, "synchronous_standby_names = ''\n", { flag: 'a' })
      await postgres('pg_ctl', ['-D', data, '-w', 'promote'])
    },
    [Symbol.asyncDispose]: async () => {
      await stop(data)
      await rm(directory, { recursive: true, force: true })
    },
  }
}

async function waitForSynchronous(from: readonly string[]): Promise<void> {
  const sql = 'select sync_state from pg_stat_replication'
  for (let tried = 0; tried < 600; tried += 1) {
    const state = await postgres('psql', [...from, '-d', identity.database, '-Atc', sql])
    if (state.trim() === 'sync') return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error('the standby did not become synchronous')
}
