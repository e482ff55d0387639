import { open, readFile, unlink } from 'node:fs/promises'
import { baseFault } from './faults.ts'
import { codeOf } from './files.ts'

/** The start time of a process in clock ticks since boot (proc(5), stat field 22): tells reused ids apart. */
async function startTime(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}

/**
 * Takes an exclusive lock file naming this process; a lock whose process is gone is taken over.
 * Throws `base.locked` when a living process holds it. Disposing releases it.
 */
export async function lock(path: string, what: string): Promise<AsyncDisposable> {
  const mine = `${process.pid} ${await startTime(process.pid)}`
  for (let attempt = 0; attempt < 3; attempt += 1) {
    try {
      const file = await open(path, 'wx', 0o600)
      await file.writeFile(mine)
      await file.close()
      return { [Symbol.asyncDispose]: () => unlink(path).catch(() => undefined) }
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
    }
    const held = await readFile(path, 'utf8').catch(() => '')
    const [pid, started] = held.split(' ')
    if (held !== '' && (await startTime(Number(pid))) === started) {
      throw baseFault('base.locked', `${what} is in use by process ${pid}`, {
        hint: 'wait for the other command to finish, then try again',
      })
    }
    await unlink(path).catch(() => undefined)
  }
  throw baseFault('base.locked', `${what} is in use by another process`)
}
