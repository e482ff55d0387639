import { codeOf } from './files.ts'

/** Signals a process. One that has ended since it was looked at needs none (ESRCH, kill(2)). */
export function signalProcess(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error
  }
}
