import assert from 'node:assert/strict'
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startSwtpm } from '@holdfast/base/swtpm-fixture'
import { Coordinator, filePin, tpmCounter } from '@holdfast/coordinator'
import { createPins } from '@holdfast/seal'

// The generation of a coordinator's state, witnessed by a counter in a real TPM 2.0.

test('a whole old disk put back is not run, also after restarts, until it is accepted', async () => {
  await using tpm = await startSwtpm()
  const root = await mkdtemp(join(tmpdir(), 'holdfast-tpm-witness-'))
  const directory = join(root, 'live')
  const start = () =>
    Coordinator.start({
      directory,
      store: { engine: 'sqlite', path: join(directory, 'state.db') },
      pins: createPins({ extra: [filePin()] }),
      counter: tpmCounter(tpm.tcti),
    })
  const stateAfterStart = async () => {
    await using coordinator = await start()
    return [coordinator.state, coordinator.reason]
  }
  const rotate = async (coordinator: Coordinator, dropBroken = false) => {
    const { digest } = await coordinator.prepareGeneration(undefined, dropBroken)
    return await coordinator.activateGeneration(digest, async () => undefined)
  }
  try {
    await mkdir(directory)
    const fresh = await start()
    await fresh.claim(
      await readFile(join(directory, 'claim-token'), 'utf8'),
      'fleet',
      async () => undefined,
    )
    await fresh[Symbol.asyncDispose]()
    await cp(directory, join(root, 'old'), { recursive: true })
    assert.deepEqual(await stateAfterStart(), ['ready', 'manifest_needed'])
    const later = await start()
    assert.equal(await rotate(later), 2)
    await later[Symbol.asyncDispose]()
    assert.deepEqual(await stateAfterStart(), ['ready', 'manifest_needed'])
    await rm(directory, { recursive: true })
    await cp(join(root, 'old'), directory, { recursive: true })
    for (let restarts = 0; restarts < 2; restarts += 1)
      assert.deepEqual(await stateAfterStart(), ['recovery', 'rollback_suspected'])
    const accepted = await start()
    assert.ok(
      (await rotate(accepted, true)) > 2,
      'the number of the lost generation is not used again',
    )
    assert.equal(accepted.state, 'ready')
    await accepted[Symbol.asyncDispose]()
    assert.deepEqual(await stateAfterStart(), ['ready', 'manifest_needed'])
  } finally {
    await rm(root, { recursive: true })
  }
})

test('a TPM that does not answer is an error with its own code, not a state without a witness', async () => {
  const counter = tpmCounter('swtpm:host=127.0.0.1,port=1')
  await assert.rejects(counter.read('c'.repeat(22)), { code: 'coordinator.tpm_failed' })
})
