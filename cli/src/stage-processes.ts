import { readdir, readFile } from 'node:fs/promises'
import { signalProcess, systemClock } from '@holdfast/base'

// A text that a test plays may start a program in the background and end it at its end, which a text
// that fails never reaches. What is left is known by the stage's environment, which it has inherited.

/** Milliseconds that a program has to end by itself. */
const patience = 20_000

/** Ends every process, but this one, whose environment has this line, and waits until they are gone. */
export async function endProcessesWith(line: string): Promise<void> {
  const found = await processesWith(line)
  for (const pid of found) signalProcess(pid, 'SIGTERM')
  for (let waited = 0; waited < patience; waited += 50) {
    if ((await processesWith(line)).length === 0) return
    await systemClock.sleep(50)
  }
  for (const pid of await processesWith(line)) signalProcess(pid, 'SIGKILL')
}

async function processesWith(line: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const having = await Promise.all(
    pids.map(async (pid) => {
      if (pid === process.pid) return []
      // One that has ended meanwhile, or is another user's, is none of ours.
      const text = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')
      return text.split('\0').includes(line) ? [pid] : []
    }),
  )
  return having.flat()
}
