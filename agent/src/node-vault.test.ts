import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { bareJwk, generateEcKey, signAdvertisement } from '@holdfast/crypto'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import type { Enrolment } from '@holdfast/protocol/frames'
import { createPins } from '@holdfast/seal'
import { NodeVault, type NodeVaultOptions } from './node-vault.ts'
import { temporaryPin } from './temporary-pin.ts'

// The node's vault by itself, on a real volume.

const { signal } = new AbortController()

/** A vault of 32 MiB to be, whose pins need nothing but the machine's memory. */
async function newVault(stack: AsyncDisposableStack, more: Partial<NodeVaultOptions> = {}) {
  return new NodeVault({ ...(await vaultOptions(stack)), ...more })
}

async function vaultOptions(stack: AsyncDisposableStack): Promise<NodeVaultOptions> {
  const scratch = async (below: string) => {
    const path = await mkdtemp(join(below, 'holdfast-node-vault-'))
    stack.defer(() => rm(path, { recursive: true, force: true }))
    return path
  }
  const [directory, memory] = [await scratch(tmpdir()), await scratch('/dev/shm')]
  const device = join(directory, 'disk.img')
  await writeFile(device, '')
  await truncate(device, 32 * 1024 * 1024)
  return {
    node: 'n'.repeat(43),
    device,
    stateDirectory: join(directory, 'node'),
    pins: () => createPins({ extra: [temporaryPin(memory)] }),
    clock: systemClock,
    enrolment: () => enrolment,
  }
}

test('what needs the volume for itself takes turns instead of being refused', async () => {
  await using stack = new AsyncDisposableStack()
  const vault = await newVault(stack)
  await vault.format(enrolment, undefined, signal)
  const opened = await Promise.all(
    Array.from({ length: 4 }, () => vault.unlock(signal, () => undefined)),
  )
  assert.equal(new Set(opened.map(({ keyslot }) => keyslot)).size, 1)
})

test('what is bound follows the newest manifest, not the enrolment', async () => {
  await using stack = new AsyncDisposableStack()
  let policy: PolicyDocument | undefined
  const vault = await newVault(stack, { policy: () => policy })
  // The key server that the manifest named at the enrolment shows another key today.
  const server = { url: 'http://127.0.0.1:1', adv: await advertisement(), thp: 'x'.repeat(43) }
  const before: Enrolment = {
    ...{ ...enrolment, genesis: false },
    pins: { t: 1, pins: { tang: [server] } },
  }
  await assert.rejects(vault.format(before, undefined, signal), { code: 'seal.trust_refused' })
  policy = {
    ...manifestPolicy,
    vault: { unlock: 'pins', pins: { t: 1, pins: { temporary: [{}] } } },
    holders: holdersNamed('bob'),
  }
  await vault.format(before, undefined, signal)
  const { slots } = await vault.list()
  const policies = slots.map(({ policy: bound }) => JSON.stringify(bound?.config))
  assert.match(policies.join(), /"temporary"/)
  assert.match(policies.join(), /"bob"/)
  assert.doesNotMatch(policies.join(), /"tang"|"alice"/)
})

test('a rekey seals the way of holders who have gone for those who came', async () => {
  await using stack = new AsyncDisposableStack()
  let holders = holdersNamed('alice')
  const policy = () => ({ ...manifestPolicy, vault: { unlock: 'peers' }, holders })
  const vault = await newVault(stack, { policy })
  await vault.format(enrolment, undefined, signal)
  const waysOf = async () => {
    const { slots } = await vault.list()
    return slots.map((slot) => {
      const [, name] = /"(alice|bob|carol)"/.exec(JSON.stringify(slot.policy?.config)) ?? []
      return `${slot.purpose} ${name ?? slot.label}`
    })
  }
  const outcomes = async () => {
    const ways = await vault.rekey(signal, () => undefined)
    return ways.map(({ outcome }) => outcome)
  }
  assert.deepEqual(await waysOf(), ['recovery alice', 'automatic temporary'])
  assert.deepEqual(await outcomes(), ['kept', 'renewed'])
  for (const name of ['bob', 'carol']) {
    holders = holdersNamed(name)
    assert.deepEqual((await outcomes()).toSorted(), ['renewed', 'renewed'])
    assert.deepEqual((await waysOf()).toSorted(), ['automatic temporary', `recovery ${name}`])
    assert.deepEqual((await outcomes()).toSorted(), ['kept', 'renewed'])
  }
  await vault.unlock(signal, () => undefined)
})

test('a rekey binds with the pins that the manifest names today', async () => {
  await using stack = new AsyncDisposableStack()
  let policy: PolicyDocument | undefined
  const vault = await newVault(stack, { policy: () => policy })
  await vault.format(enrolment, undefined, signal)
  const pins = { t: 1, pins: { temporary: [{}] } }
  policy = { ...manifestPolicy, vault: { pins } }
  const bound = async () => {
    await vault.rekey(signal, () => undefined)
    const { slots } = await vault.list()
    return slots.find(({ purpose }) => purpose === 'automatic')?.policy
  }
  const both = {
    pin: 'sss',
    config: { t: 2, pins: { temporary: [{}], sss: [pins] } },
  }
  assert.deepEqual(await bound(), both)
  assert.deepEqual(await bound(), both)
  policy = { ...manifestPolicy, vault: {} }
  assert.deepEqual(await bound(), { pin: 'temporary', config: {} })
  await vault.unlock(signal, () => undefined)
})

test('a rekey seals the way of the holders for the identity that the node has now', async () => {
  await using stack = new AsyncDisposableStack()
  const options = await vaultOptions(stack)
  const former = new NodeVault(options)
  await former.format(enrolment, undefined, signal)
  const present = new NodeVault({ ...options, node: 'm'.repeat(43) })
  const madeFor = async () => {
    const { slots } = await present.list()
    return slots.flatMap(({ inspection }) => inspection?.use?.of ?? [])
  }
  assert.deepEqual(await madeFor(), ['n'.repeat(43)])
  await present.rekey(signal, () => undefined)
  assert.deepEqual(await madeFor(), ['m'.repeat(43)])
})

test('a rekey leaves a way back alone that the enrolment never named', async () => {
  await using stack = new AsyncDisposableStack()
  let enrolled = enrolment
  let policy: PolicyDocument | undefined
  const vault = await newVault(stack, { enrolment: () => enrolled, policy: () => policy })
  await vault.format(enrolment, undefined, signal)
  enrolled = { ...enrolment, holders: holdersNamed('carol') }
  policy = { ...manifestPolicy, vault: {}, holders: holdersNamed('bob') }
  const ways = await vault.rekey(signal, () => undefined)
  assert.deepEqual(
    ways.map(({ outcome }) => outcome),
    ['kept', 'renewed'],
  )
})

const holder = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey

/** What a key server advertises (RFC 7515 7.2.2). */
async function advertisement() {
  const signer = generateEcKey('P-256')
  const keys = [
    { ...bareJwk(signer), alg: 'ES256', key_ops: ['verify'] },
    { ...bareJwk(generateEcKey('P-256')), alg: 'ECMR', key_ops: ['deriveKey'] },
  ]
  return JSON.parse(await signAdvertisement(keys, [signer])) as unknown
}

/** One holder, who alone is enough. */
function holdersNamed(name: string) {
  return {
    threshold: 1,
    keys: { [name]: holder.export({ type: 'spki', format: 'pem' }).toString() },
  }
}

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
  holders: holdersNamed('alice'),
}

const manifestPolicy = {
  ...{ cluster: enrolment.cluster, manifest: 'm'.repeat(43), guardians: {}, services: {} },
  ...{ healthChecks: {}, twoPersonRule: false },
}
