import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { baseFault } from './faults.ts'
import { fileFault } from './files.ts'
import { lockDescriptor } from './run.ts'

/**
 * Takes an exclusive lock on a file, which is made when it is missing and stays. The kernel holds the
 * lock and frees it when this process ends, however it ends, so there is never a stale one to
 * break; the process id inside is for the message only. Disposing releases the lock. A symbolic
 * link is refused: the file it leads to would be emptied.
 * @throws Fault base.locked when somebody, this process included, already holds it
 */
export async function lock(path: string, what: string): Promise<AsyncDisposable> {
  const file = await openLockFile(path)
  try {
    if (!(await lockDescriptor(file.fd))) throw await locked(file, what)
    await file.truncate(0)
    await file.write(`${process.pid}\n`, 0)
  } catch (error) {
    await file.close()
    throw error
  }
  return { [Symbol.asyncDispose]: () => file.close() }
}

async function openLockFile(path: string): Promise<FileHandle> {
  try {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
    return await open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
  } catch (cause) {
    throw fileFault(path, cause)
  }
}

async function locked(file: FileHandle, what: string): Promise<Error> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(32), 0, 32, 0)
  const holder = buffer.toString('utf8', 0, bytesRead).trim()
  const by = /^\d+$/.test(holder) ? `process ${holder}` : 'another process'
  return baseFault('base.locked', `${what} is in use by ${by}`, {
    hint: 'wait for the other command to finish, then try again',
  })
}
