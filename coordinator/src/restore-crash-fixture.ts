import { writeDurable } from '@holdfast/base'
import { makeBackup } from './backup.ts'
import { BackupCheck, backupFile } from './backup-check.ts'
import { Coordinator } from './coordinator.ts'
import { optionsIn } from './crash-fixture.ts'
import { killAt } from './kill-at-effect.ts'
import { restoreBackup } from './restore.ts'
import { newId } from './ways.ts'

// What the crash tests of backups kill, with SIGKILL: a restore at its N-th durable write, or moment
// just before or after a commit; the writing of a bundle once so many of its parts have been written.
//
//   node restore-crash-fixture.ts N restore FILE DIRECTORY
//   node restore-crash-fixture.ts 0 backup DIRECTORY FILE PARTS

async function restore(file: string, directory: string, at: number): Promise<void> {
  killAt(at)
  await restoreBackup(backupFile(file), optionsIn(directory))
}

async function backup(directory: string, file: string, parts: number): Promise<void> {
  await using coordinator = await Coordinator.start(optionsIn(directory))
  const { store, identity, clock } = coordinator
  const made = makeBackup({ store, identity, clock, bundle: newId() })
  let left = parts
  const killed = (async function* () {
    for await (const part of made) {
      if (left === 0) process.kill(process.pid, 'SIGKILL')
      left -= 1
      yield Buffer.from(part)
    }
    if (left === 0) process.kill(process.pid, 'SIGKILL')
  })()
  await writeDurable(file, new BackupCheck().pass(killed))
}

if (import.meta.main) {
  const [, , at = '0', what = '', from = '', to = '', parts = '0'] = process.argv
  if (what === 'restore') await restore(from, to, Number(at))
  else await backup(from, to, Number(parts))
}
