import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type BootStep, firstBoot } from './first-boot.ts'

test('a step that does not verify is a failure, and the identity is not renewed', async () => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-first-boot-'))
  const step: BootStep = {
    name: 'signing-keys',
    check: async () => 'missing',
    make: async () => undefined,
  }
  await assert.rejects(firstBoot(path, [step], { renew: [] }), {
    code: 'agent.first_boot_unverified',
  })
  const fixed: BootStep = { ...step, name: 'identity', fixed: 'no' }
  await assert.rejects(firstBoot(path, [fixed], { renew: ['identity'] }), {
    code: 'agent.command_refused',
  })
  await rm(path, { recursive: true })
})

test('what is there is kept, what is missing is made, what is named is made anew once', async () => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-first-boot-'))
  try {
    const made: string[] = []
    const step = (name: BootStep['name'], there: boolean): BootStep => ({
      name,
      check: async () => (there || made.includes(name) ? 'kept' : 'missing'),
      make: async (renew) => {
        made.push(name)
        if (renew) made.push('renewed')
      },
    })
    const steps: BootStep[] = [
      step('identity', true),
      { ...step('tpm-binding', false), check: async () => ({ absent: 'no TPM' }) },
      step('signing-keys', false),
      step('canaries', true),
    ]
    const outcomes = async (command: string) => {
      const order = { renew: ['canaries'] as const, command }
      const found = await firstBoot(path, steps, order)
      return found.map(({ outcome, detail = '' }) => `${outcome} ${detail}`.trim())
    }
    assert.deepEqual(await outcomes('one'), ['kept', 'absent no TPM', 'made', 'renewed'])
    assert.deepEqual(made, ['signing-keys', 'canaries', 'renewed'])
    assert.deepEqual(await outcomes('one'), ['kept', 'absent no TPM', 'kept', 'renewed'])
    assert.equal(made.length, 3, 'the same order again')
    await outcomes('two')
    assert.equal(made.length, 5)
  } finally {
    await rm(path, { recursive: true })
  }
})
