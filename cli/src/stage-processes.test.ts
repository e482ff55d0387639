import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { startProgram } from '@holdfast/base'
import { endProcessesWith } from './stage-processes.ts'

/** Nothing runs in a process that has ended, also before anybody has asked for its exit code. */
async function runs(pid: string): Promise<boolean> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')) !== ''
}

test('what a text has left in the background ends with the stage, and nothing else', async () => {
  const start = async (mark: string) => {
    const environment = { STAGE: mark }
    const text = 'sleep 1000 2> /dev/null & echo $!; exec sleep 1000'
    return await startProgram('sh', ['-c', text], () => true, { environment })
  }
  const here = `/here/${process.pid}` // and nobody else's test of this name
  const [ours, other] = [await start(here), await start(`${here}/too`)]
  await using _other = other.running
  await endProcessesWith(`STAGE=${here}`)
  await ours.running.ended
  assert.deepEqual([await runs(ours.line), await runs(other.line)], [false, true])
  await endProcessesWith(`STAGE=${here}/too`)
  assert.equal(await runs(other.line), false)
})
