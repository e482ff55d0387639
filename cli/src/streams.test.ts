import assert from 'node:assert/strict'
import { test } from 'node:test'
import { run } from '@holdfast/base'

test('what runs goes on when nobody reads its standard error any more', async () => {
  const module = JSON.stringify(new URL('streams.ts', import.meta.url).href)
  const script = `
    const { processStreams } = await import(${module})
    const { err, out } = processStreams()
    for (let failed = 0; failed < 3; ) {
      err('a line that nobody reads')
      if (process.stderr.errored !== null) failed += 1 // until the stream is mended, in this turn
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    await out('still here')`
  const words = ['-c', 'exec "$0" --input-type=module -e "$1" 2> >(exec true)']
  const { stdout } = await run('bash', [...words, process.execPath, script])
  assert.equal(stdout.toString('utf8'), 'still here')
})
