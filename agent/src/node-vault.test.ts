import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import type { Enrolment } from '@holdfast/protocol/frames'
import { createPins } from '@holdfast/seal'
import { NodeVault } from './node-vault.ts'
import { temporaryPin } from './temporary-pin.ts'

// The node's vault by itself, on a real volume.

test('what needs the volume for itself takes turns instead of being refused', async () => {
  await using stack = new AsyncDisposableStack()
  const scratch = async (below: string) => {
    const path = await mkdtemp(join(below, 'holdfast-node-vault-'))
    stack.defer(() => rm(path, { recursive: true, force: true }))
    return path
  }
  const [directory, memory] = [await scratch(tmpdir()), await scratch('/dev/shm')]
  const device = join(directory, 'disk.img')
  await writeFile(device, '')
  await truncate(device, 32 * 1024 * 1024)
  const vault = new NodeVault({
    node: 'n'.repeat(43),
    device,
    stateDirectory: join(directory, 'node'),
    pins: () => createPins({ extra: [temporaryPin(memory)] }),
    clock: systemClock,
    enrolment: () => enrolment,
  })
  const { signal } = new AbortController()
  await vault.format(enrolment, undefined, signal)
  const opened = await Promise.all(
    Array.from({ length: 4 }, () => vault.unlock(signal, () => undefined)),
  )
  assert.equal(new Set(opened.map(({ keyslot }) => keyslot)).size, 1)
})

const holder = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
const enrolment: Enrolment = {
  cluster: 'c'.repeat(22),
  name: 'node-1',
  certificate: '',
  authority: '',
  coordinators: ['https://127.0.0.1:1'],
  coordinatorIdentity: 'i'.repeat(43),
  commandKey: '',
  address: '10.88.0.2/16',
  genesis: true,
  holders: {
    threshold: 1,
    keys: { alice: holder.export({ type: 'spki', format: 'pem' }).toString() },
  },
}
