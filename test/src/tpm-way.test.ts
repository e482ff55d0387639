import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startSwtpm } from '@holdfast/base/swtpm-fixture'
import { startControlPlane } from '@holdfast/drills'
import { keyRoutes } from '@holdfast/protocol'

// A coordinator whose state is opened by a real TPM 2.0 when its host key has gone.

const program = (part: string, ...more: string[]) => ({
  program: process.execPath,
  args: [
    fileURLToPath(import.meta.resolve(`@holdfast/${part}`)).replace(/index\.ts$/, 'main.ts'),
    ...more,
  ],
})

test('the TPM opens the state by itself, is proven on demand, and is no way on another machine', async () => {
  await using tpm = await startSwtpm()
  await using other = await startSwtpm()
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-tpm-way-'))
  const programs = {
    coordinator: program('coordinator', '--tpm', tpm.tcti),
    agent: program('agent'),
  }
  try {
    await using plane = await startControlPlane({ directory, programs })
    const { client, coordinator } = plane
    const config = { pcr_bank: 'sha256', pcr_ids: '7' }
    const way = await client.call(keyRoutes.add, { body: { kind: 'tpm2', config } })
    assert.equal(way.state, 'active')
    await client.call(keyRoutes.prove, { params: { id: way.id } })

    await coordinator.stop()
    await rm(join(coordinator.directory, 'host.key'))
    await coordinator.start()
    assert.equal((await coordinator.status()).state, 'running')
    await client.call(keyRoutes.prove, { params: { id: way.id } })

    programs.coordinator.args.splice(-1, 1, other.tcti)
    await coordinator.stop()
    await coordinator.start()
    const { state, reason } = await coordinator.status()
    assert.deepEqual([state, reason], ['recovery', 'key_missing'])
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
