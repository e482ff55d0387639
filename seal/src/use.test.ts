import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { isObject } from '@holdfast/base'
import { holderRequests, useOf } from './inspect.ts'
import { childrenOf, openText, sealText, withHeader } from './lab.ts'
import { answerRecoveryRequest, makeRecoveryRequest, parseRecoveryRequest } from './offline.ts'
import { open } from './open.ts'
import type { SealedUse } from './pin.ts'
import { createPins } from './pins.ts'
import { threshold } from './policy.ts'
import { rehearse } from './rehearse.ts'
import { reseal } from './reseal.ts'

// What a sealed secret is for, and that its shares serve nothing else.

const holders = ['ann', 'bob'].map((name) => ({
  name,
  ...generateKeyPairSync('rsa', { modulusLength: 3072 }),
}))
const persons = threshold(
  2,
  holders.map(({ name, publicKey }) => ({
    kind: 'pin' as const,
    pin: 'person',
    config: { name, key: publicKey.export({ type: 'spki', format: 'pem' }) },
  })),
)

/** Pins with both holders present, and who was asked. */
function present() {
  const asked: string[] = []
  const pins = createPins({
    holders: {
      answer: async ({ name }) => {
        asked.push(name)
        const holder = holders.find((each) => each.name === name)
        return holder && { privateKey: holder.privateKey }
      },
    },
  })
  return { pins, asked }
}

/** The shares of a sealed secret under a header of somebody's own, which says another use or none. */
function borrowed(sealed: string, use: SealedUse | undefined): string {
  return withHeader(sealed, (header) => {
    const own = isObject(header.holdfast) ? header.holdfast : {}
    const { use: _, shares: __, ...rest } = own
    return { ...header, holdfast: { ...rest, ...(use === undefined ? {} : { use: { ...use } }) } }
  })
}

const dataKey = { purpose: 'coordinator', of: 'fleet' } as const
const vault = { purpose: 'vault', of: 'node' } as const

test('the use stands in the secret and in each share, and stays over a reseal', async () => {
  const { pins } = present()
  const sealed = await sealText(persons, 'hi', { use: vault }, pins)
  assert.deepEqual(useOf(sealed), vault)
  for (const child of childrenOf(sealed)) assert.deepEqual(useOf(child), vault)
  assert.equal(await openText(sealed, pins), 'hi')
  const again = await reseal(pins, sealed, persons)
  assert.deepEqual(useOf(again.sealed), vault)
  assert.equal(useOf(await sealText(persons)), undefined)
})

test("a share under another secret's header is refused before its holder is asked", async () => {
  const sealed = await sealText(persons, 'hi', { use: dataKey })
  for (const claimed of [vault, { ...dataKey, of: 'other' }, undefined]) {
    const { pins, asked } = present()
    await assert.rejects(open(pins, borrowed(sealed, claimed)), {
      code: 'seal.threshold_not_met',
      message: /is for something else/,
    })
    const { children = [] } = await rehearse(pins, borrowed(sealed, claimed))
    assert.deepEqual(
      children.map(({ fault }) => fault?.code),
      ['seal.use_foreign', 'seal.use_foreign'],
    )
    assert.deepEqual(asked, [])
  }
})

test('a use that was rewritten everywhere opens nothing', async () => {
  const sealed = await sealText(persons, 'hi', { use: dataKey })
  const children = childrenOf(sealed).map((child) =>
    withHeader(child, (header) => ({
      ...header,
      holdfast: { ...(isObject(header.holdfast) ? header.holdfast : {}), use: { ...vault } },
    })),
  )
  const forged = withHeader(borrowed(sealed, vault), (header) => {
    const clevis = isObject(header.clevis) ? header.clevis : {}
    const sss = isObject(clevis.sss) ? clevis.sss : {}
    return { ...header, clevis: { ...clevis, sss: { ...sss, jwe: children } } }
  })
  assert.deepEqual(useOf(forged), vault)
  assert.equal(holderRequests(forged).length, 2)
  await assert.rejects(open(present().pins, forged), {
    code: 'seal.threshold_not_met',
    message: /does not open their share/,
  })
})

test("a colleague's answer is for vaults alone", async () => {
  const technician = generateKeyPairSync('x25519').publicKey
  const { pins, asked } = present()
  for (const purpose of ['coordinator', 'proof'] as const) {
    const sealed = await sealText(persons, 'hi', { use: { purpose, of: 'fleet' } }, pins)
    const request = parseRecoveryRequest(makeRecoveryRequest(sealed, technician))
    await assert.rejects(answerRecoveryRequest(pins, request), { code: 'seal.use_foreign' })
  }
  assert.deepEqual(asked, [])
  const sealed = await sealText(persons, 'hi', { use: vault }, pins)
  const request = parseRecoveryRequest(makeRecoveryRequest(sealed, technician))
  assert.ok(await answerRecoveryRequest(pins, request))
})
