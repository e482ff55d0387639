import assert from 'node:assert/strict'
import { appendFile, cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { canonicalJson, isFault, Secret } from '@holdfast/base'
import { generateEcKey, parseJwe, thumbprint } from '@holdfast/crypto'
import { pinnedTls, signBody } from '@holdfast/link'
import { createPins, type OpenEvent, open, rehearse, seal } from '@holdfast/seal'
import { agentFault } from './faults.ts'
import { publicPem } from './identity.ts'
import { probePeer, type WardIdentity } from './peer-client.ts'
import {
  type PeerFleet,
  peerConfig,
  peerFleet,
  peerPolicy,
  type TestGuardian,
} from './peer-fleet.ts'
import { peerPin, peerPlaceOf } from './peer-pin.ts'
import { requestBody } from './peer-protocol.ts'
import { verifyReleaseLog } from './release-log.ts'

const plaintext = 'the volume passphrase'

async function guarded(fleet: PeerFleet, count: number, threshold: number, epoch = 1) {
  const ward = await fleet.node()
  const guardians: TestGuardian[] = []
  for (let index = 0; index < count; index += 1) guardians.push(await fleet.guardian())
  const pins = createPins({ extra: [peerPin(ward)] })
  const sealTo = async (at: number) => {
    const policy = await peerPolicy(ward, guardians, { threshold, epoch: at })
    using secret = Secret.copy(plaintext)
    return await seal(pins, policy, secret)
  }
  return { ward, guardians, pins, sealTo, sealed: await sealTo(epoch) }
}

/** Opens and gives the text, with the code of every guardian that did not help. */
async function opened(pins: ReturnType<typeof createPins>, sealed: string) {
  const failed: string[] = []
  const onEvent = (event: OpenEvent) => {
    if (event.state === 'failed' && event.path.length > 0) failed.push(event.fault?.code ?? '')
  }
  using secret = await open(pins, sealed, { onEvent, timeout: 60_000 })
  return { text: secret.reveal().toString('utf8'), failed }
}

/** The one share of the first guardian, as a sealed secret of its own. */
async function alone(fleet: PeerFleet, guardian: TestGuardian, epoch = 1) {
  const ward = await fleet.node()
  const key = await guardian.keys.prepare(ward.node, publicPem(ward.identity), epoch)
  const pins = createPins({ extra: [peerPin(ward)] })
  using secret = Secret.copy(plaintext)
  const config = peerConfig(ward, guardian, epoch, key)
  const sealed = await seal(pins, { kind: 'pin', pin: 'peer', config }, secret)
  return { ward, pins, sealed, kid: thumbprint(key) }
}

test('k and k+1 guardians open, k-1 do not', async () => {
  await using fleet = await peerFleet()
  const { guardians, pins, sealed } = await guarded(fleet, 5, 3)
  assert.equal((await opened(pins, sealed)).text, plaintext)
  await guardians[0]?.stop()
  assert.equal((await opened(pins, sealed)).text, plaintext) // k + 1
  await guardians[1]?.stop()
  assert.equal((await opened(pins, sealed)).text, plaintext) // k
  await guardians[2]?.stop()
  await assert.rejects(opened(pins, sealed), { code: 'seal.threshold_not_met' })
  await guardians[0]?.start()
  assert.equal((await opened(pins, sealed)).text, plaintext)
})

test('one and two lying guardians are named and spoil nothing', async () => {
  await using fleet = await peerFleet()
  const { ward, guardians, pins, sealed } = await guarded(fleet, 5, 3)
  const liars: string[] = []
  for (const liar of guardians.slice(0, 2)) {
    await makeLie(liar, ward)
    liars.push(liar.identity.node)
    const rehearsal = await rehearse(pins, sealed, { timeout: 60_000 })
    const named = (rehearsal.children ?? []).filter(
      ({ fault }) => fault?.code === 'agent.guardian_lied',
    )
    assert.deepEqual(named.map(({ label }) => label).sort(), [...liars].sort())
    assert.equal((await opened(pins, sealed)).text, plaintext)
  }
  const [, , third] = guardians
  assert.ok(third)
  await makeLie(third, ward)
  await assert.rejects(opened(pins, sealed), { code: 'seal.threshold_not_met' })
})

/** The guardian answers from now on, and with another key than the one it gave. */
async function makeLie({ directory, keys }: TestGuardian, ward: WardIdentity): Promise<void> {
  const path = join(directory, 'wards', ward.node, '1.jwk')
  const file = JSON.parse(await readFile(path, 'utf8'))
  const found = await keys.find(ward.node, 1, thumbprint(file.key))
  const wrong = generateEcKey('P-256')
  keys.find = async () => ({ ...found, key: wrong })
}

test('a probe tells that the key is there, and a wrong key, without a release', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ward, sealed } = await alone(fleet, guardian)
  const signal = AbortSignal.timeout(60_000)
  await probePeer(ward, peerPlaceOf(parseJwe(sealed)), signal)
  const entries = await verifyReleaseLog(join(guardian.directory, 'releases.log'))
  assert.deepEqual(
    entries.map(({ event }) => event),
    ['probed'],
  )
  await makeLie(guardian, ward)
  const again = probePeer(ward, peerPlaceOf(parseJwe(sealed)), signal)
  await assert.rejects(again, { code: 'agent.guardian_lied' })
})

test('a guardian that was rolled back to an old epoch is named, the others open', async () => {
  await using fleet = await peerFleet()
  const { ward, guardians, pins, sealTo } = await guarded(fleet, 4, 3)
  const [first] = guardians
  assert.ok(first)
  const backup = join(fleet.path, 'backup')
  await cp(join(first.directory, 'wards'), backup, { recursive: true })
  const sealed = await sealTo(2)
  for (const { keys } of guardians) await keys.retire(ward.node, 1)
  await first.stop()
  await rm(join(first.directory, 'wards'), { recursive: true })
  await cp(backup, join(first.directory, 'wards'), { recursive: true })
  await first.start()
  const rehearsal = await rehearse(pins, sealed, { timeout: 60_000 })
  const failed = (rehearsal.children ?? []).filter(({ fault }) => fault !== undefined)
  assert.equal(failed.length, 1)
  assert.equal(failed[0]?.fault?.code, 'agent.ward_key_absent')
  assert.match(failed[0]?.fault?.message ?? '', /gone back to epoch 1; this vault needs 2/)
  assert.equal((await opened(pins, sealed)).text, plaintext)
})

test('after a re-share an old copy of the disk is refused and alarmed', async () => {
  await using fleet = await peerFleet()
  const { ward, guardians, pins, sealed, sealTo } = await guarded(fleet, 3, 2)
  const fresh = await sealTo(2)
  for (const { keys } of guardians) await keys.retire(ward.node, 1)
  await assert.rejects(opened(pins, sealed), { code: 'seal.threshold_not_met' })
  // Two that refuse are enough to know that it does not open: the third may not have been heard.
  const alarmed = guardians.filter(({ incidents }) => incidents[0]?.code === 'peer.old_epoch')
  assert.ok(alarmed.length >= 2, `${alarmed.length} guardians told`)
  assert.equal((await opened(pins, fresh)).text, plaintext)
  const again = guardians[0]?.keys.prepare(ward.node, publicPem(ward.identity), 1)
  await assert.rejects(again ?? Promise.resolve(), { code: 'agent.ward_stale' })
})

test('making the key of an epoch twice gives the same key', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const ward = await fleet.node()
  const first = await guardian.keys.prepare(ward.node, publicPem(ward.identity), 7)
  assert.deepEqual(await guardian.keys.prepare(ward.node, publicPem(ward.identity), 7), first)
  const foreign = guardian.keys.prepare(guardian.identity.node, publicPem(ward.identity), 7)
  await assert.rejects(foreign, { code: 'agent.request_malformed' })
})

test('a frozen ward gets nothing, not even a probe, and it is alarmed', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ward, pins, sealed } = await alone(fleet, guardian)
  guardian.frozen.set(ward.node, 'stolen')
  await assert.rejects(opened(pins, sealed), { code: 'agent.guardian_frozen', message: /stolen/ })
  const probe = probePeer(ward, peerPlaceOf(parseJwe(sealed)), AbortSignal.timeout(60_000))
  await assert.rejects(probe, { code: 'agent.guardian_frozen' })
  assert.equal(guardian.incidents[0]?.code, 'peer.release_refused')
  guardian.frozen.clear()
  assert.equal((await opened(pins, sealed)).text, plaintext)
})

test('a stolen node that asks for ever fills no disk and buries no alarm', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ward, kid } = await alone(fleet, guardian)
  guardian.frozen.set(ward.node, 'stolen')
  for (let count = 0; count < 80; count += 1) {
    const body = await signedRequest(ward, guardian, kid, await fetchNonce(ward, guardian))
    const reply = await call(ward, guardian, `/peer/rec/${kid}`, { body })
    assert.equal(reply.code, 'agent.guardian_frozen')
  }
  const refused = async () =>
    (await verifyReleaseLog(join(guardian.directory, 'releases.log'))).filter(
      ({ event }) => event === 'refused',
    ).length
  assert.deepEqual([await refused(), guardian.incidents.length], [60, 60])
  guardian.time.now += 3_600_001
  const body = await signedRequest(ward, guardian, kid, await fetchNonce(ward, guardian))
  await call(ward, guardian, `/peer/rec/${kid}`, { body })
  assert.equal(await refused(), 61)
})

test('a replayed, forged, stale or borrowed request is refused', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ward, kid } = await alone(fleet, guardian)
  const thief = await fleet.node()
  const nonce = await fetchNonce(ward, guardian)
  const good = await signedRequest(ward, guardian, kid, nonce)
  const send = (from: WardIdentity, body: string) =>
    call(from, guardian, `/peer/rec/${kid}`, { body })
  assert.equal((await send(ward, good)).status, 200)
  assert.equal((await send(ward, good)).code, 'agent.nonce_invalid')
  assert.equal((await send(thief, good)).code, 'agent.guardian_refused')
  const forged = await signedRequest(thief, guardian, kid, await fetchNonce(ward, guardian))
  const claimed = canonicalJson({ ...JSON.parse(forged), ward: ward.node })
  assert.equal((await send(ward, claimed)).code, 'agent.signature_invalid')
  const borrowed = await signedRequest(ward, guardian, kid, await fetchNonce(thief, guardian))
  assert.equal((await send(ward, borrowed)).code, 'agent.nonce_invalid')
  const late = await signedRequest(ward, guardian, kid, await fetchNonce(ward, guardian))
  guardian.time.now += 61_000
  assert.equal((await send(ward, late)).code, 'agent.nonce_invalid')
  assert.equal((await send(ward, '{"ward":')).code, 'base.bad_json')
  assert.equal((await send(ward, '{}')).code, 'agent.request_malformed')
})

test('a request for one guardian is worth nothing at another', async () => {
  await using fleet = await peerFleet()
  const [here, there] = [await fleet.guardian(), await fleet.guardian()]
  const { ward } = await alone(fleet, here)
  const key = await there.keys.prepare(ward.node, publicPem(ward.identity), 1)
  const nonce = await fetchNonce(ward, there)
  const body = await signedRequest(ward, here, thumbprint(key), nonce)
  const reply = await call(ward, there, `/peer/rec/${thumbprint(key)}`, { body })
  assert.equal(reply.code, 'agent.signature_invalid')
})

test('strangers do not get as far as HTTP', async () => {
  await using fleet = await peerFleet()
  await using other = await peerFleet()
  const guardian = await fleet.guardian()
  const stranger = await other.node()
  await assert.rejects(call(stranger, guardian, '/peer/nonce', {}))
  assert.deepEqual(guardian.incidents, [])
})

test('a copied disk that asks from elsewhere is alarmed, and refused outside of its sources', async () => {
  await using fleet = await peerFleet()
  const open = await fleet.guardian()
  const strict = await fleet.guardian({ policy: { sources: ['127.0.0.1/32'] } })
  for (const [guardian, expected] of [
    [open, undefined],
    [strict, 'agent.guardian_source'],
  ] as const) {
    const { ward, pins, sealed, kid } = await alone(fleet, guardian)
    assert.equal((await opened(pins, sealed)).text, plaintext)
    assert.equal(guardian.incidents.length, 0)
    // The log remembers across a restart where the node was.
    await guardian.stop()
    await guardian.start()
    const nonce = await fetchNonce(ward, guardian)
    const body = await signedRequest(ward, guardian, kid, nonce)
    const from = { body, localAddress: '127.0.0.2' }
    const reply = await call(ward, guardian, `/peer/rec/${kid}`, from)
    assert.equal(reply.code, expected)
    const [incident] = guardian.incidents
    const code = expected === undefined ? 'peer.ward_moved' : 'peer.release_refused'
    assert.equal(incident?.code, code)
    assert.match(incident?.text ?? '', /127\.0\.0\.2/)
  }
})

test('a held release is announced at once and answered when its time has come', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian({ policy: { holdMinutes: 10 } })
  const { pins, sealed } = await alone(fleet, guardian)
  const held = await opened(pins, sealed).catch((error: unknown) => error)
  assert.ok(isFault(held, 'agent.guardian_held'))
  assert.equal(held.details?.retryAfter, 600)
  assert.equal(guardian.incidents[0]?.code, 'peer.release_held')
  guardian.time.now += 599_000
  await assert.rejects(opened(pins, sealed), { code: 'agent.guardian_held' })
  assert.equal(guardian.incidents.length, 1)
  guardian.time.now += 1_000
  assert.equal((await opened(pins, sealed)).text, plaintext)
  guardian.time.now += 600_000
  await assert.rejects(opened(pins, sealed), { code: 'agent.guardian_held' })
})

test('releases in an hour are counted', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian({ policy: { releasesPerHour: 2 } })
  const { pins, sealed } = await alone(fleet, guardian)
  await opened(pins, sealed)
  await opened(pins, sealed)
  await assert.rejects(opened(pins, sealed), { code: 'agent.guardian_rate' })
  guardian.time.now += 3_600_000
  assert.equal((await opened(pins, sealed)).text, plaintext)
})

test('the release log shows a change, and mends only its own torn end', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { pins, sealed } = await alone(fleet, guardian)
  await opened(pins, sealed)
  await opened(pins, sealed)
  await guardian.stop()
  const path = join(guardian.directory, 'releases.log')
  const whole = await readFile(path, 'utf8')
  await appendFile(path, whole.slice(0, 50))
  await guardian.start()
  await opened(pins, sealed)
  const events = (await verifyReleaseLog(path)).map(({ event }) => event)
  assert.deepEqual(events, ['released', 'released', 'torn', 'released'])
  const lines = whole.trimEnd().split('\n')
  for (const changed of [
    whole.replace('"released"', '"refused"'),
    lines.slice(1).join('\n'),
    [lines[1], lines[0]].join('\n'),
    `${lines[0]}\nrubbish\n${lines[1]}\n`,
  ]) {
    await writeFile(path, `${changed.trimEnd()}\n`)
    await assert.rejects(verifyReleaseLog(path), { code: 'agent.log_damaged' })
  }
})

test('what went wrong inside is told inside, and outside only that it did', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ward, sealed, kid } = await alone(fleet, guardian)
  const path = join(guardian.directory, 'wards', ward.node, '1.jwk')
  const asked = async () => {
    const signal = AbortSignal.timeout(60_000)
    const failed = await probePeer(ward, peerPlaceOf(parseJwe(sealed)), signal).catch(String)
    assert.doesNotMatch(`${failed}`, new RegExp(guardian.directory))
    return `${failed}`
  }
  const whole = await readFile(path, 'utf8')
  await writeFile(path, whole.replace('"P-256"', '"P-25"'))
  assert.match(await asked(), /could not answer/)
  assert.ok(isFault(guardian.errors[0], 'agent.ward_key_damaged'))
  assert.ok(!`${guardian.errors[0]}`.includes(JSON.parse(whole).key.d))
  await rm(path)
  await mkdir(path)
  assert.match(await asked(), /could not answer/)
  assert.ok(isFault(guardian.errors[1], 'base.file_unreadable'))
  await rm(path, { recursive: true })
  guardian.keys.find = () => Promise.reject(new TypeError('a defect'))
  assert.match(await asked(), /could not answer/)
  assert.match(String(guardian.errors[2]), /a defect/)
  assert.equal(guardian.errors.length, 3)

  // Of what is wrong with a request its asker hears everything, and nobody else anything.
  const { code } = await call(ward, guardian, `/peer/rec/${kid}`, { body: '{}' })
  assert.equal(code, 'agent.request_malformed')
  assert.equal(guardian.errors.length, 3)

  // What cannot even be written ends the connection, not the process that has a vault to open.
  const details = { retryAfter: '\n' }
  guardian.keys.find = () => Promise.reject(agentFault('agent.guardian_rate', 'wait', { details }))
  assert.match(await asked(), /cannot be reached/)
  assert.match(`${guardian.errors[3]}`, /retry-after/)
  assert.equal(guardian.errors.length, 4)
})

test('what a ward that asks all the time adds to the log and to the alarms is bounded', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian({ policy: { holdMinutes: 10 } })
  const { ward, kid } = await alone(fleet, guardian)
  for (let turn = 0; turn < 70; turn += 1) {
    const nonce = await fetchNonce(ward, guardian)
    const body = await signedRequest(ward, guardian, kid, nonce)
    const localAddress = `127.0.0.${2 + (turn % 2)}`
    const { code } = await call(ward, guardian, `/peer/rec/${kid}`, { body, localAddress })
    assert.equal(code, 'agent.guardian_held')
  }
  assert.equal(guardian.incidents.length, 60)
  const entries = await verifyReleaseLog(join(guardian.directory, 'releases.log'))
  assert.equal(entries.length, 60)
})

test('a guardian that has stopped has nothing under way: what it was doing is in its log', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { pins, sealed } = await alone(fleet, guardian)
  const [asked, going] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const find = guardian.keys.find.bind(guardian.keys)
  guardian.keys.find = async (...of) => {
    asked.resolve()
    await going.promise
    return await find(...of)
  }
  const asking = opened(pins, sealed).catch(() => undefined)
  await asked.promise
  const stopping = guardian.stop()
  await asking
  going.resolve()
  await stopping
  const entries = await verifyReleaseLog(join(guardian.directory, 'releases.log'))
  assert.deepEqual(
    entries.map(({ event }) => event),
    ['released'],
  )
})

test('a peer pin refuses what it cannot use', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ward, sealed } = await alone(fleet, guardian)
  const key = await guardian.keys.prepare(ward.node, publicPem(ward.identity), 1)
  const config = peerConfig(ward, guardian, 1, key)
  const pins = createPins({ extra: [peerPin(ward)] })
  using secret = Secret.copy(plaintext)
  for (const wrong of [
    { guardian: ward.node },
    { addresses: ['http://127.0.0.1:1'] },
    { adv: { keys: [] } },
    { epoch: 0 },
  ]) {
    const policy = { kind: 'pin', pin: 'peer', config: { ...config, ...wrong } } as const
    await assert.rejects(seal(pins, policy, secret), { code: 'agent.peer_policy_invalid' })
  }
  const other = createPins({ extra: [peerPin(await fleet.node())] })
  await assert.rejects(opened(other, sealed), { code: 'agent.ward_unknown' })
  assert.deepEqual(peerPin(ward).policyOf(parseJwe(sealed)).config, config)
})

async function fetchNonce(from: WardIdentity, guardian: TestGuardian): Promise<string> {
  const { body } = await call(from, guardian, '/peer/nonce', {})
  return JSON.parse(body).nonce
}

async function signedRequest(
  ward: WardIdentity,
  guardian: TestGuardian,
  kid: string,
  nonce: string,
): Promise<string> {
  const { kty, crv, x, y } = generateEcKey('P-256')
  const request = { ward: ward.node, epoch: 1, nonce, point: { kty, crv, x, y } }
  const body = requestBody(guardian.identity.node, kid, request)
  return canonicalJson({ ...request, signature: signBody(ward.identity, 'peer-release', body) })
}

/** One request over real TLS, from a chosen local address. */
async function call(
  from: WardIdentity,
  guardian: TestGuardian,
  path: string,
  { body, localAddress }: { body?: string; localAddress?: string },
): Promise<{ status: number; body: string; code: string | undefined }> {
  const { own, authority } = from
  const agent = pinnedTls(guardian.identity.node, { own, authority, timeout: 60_000 })
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>()
  const outgoing = httpsRequest(`${guardian.url}${path}`, {
    agent,
    method: body === undefined ? 'GET' : 'POST',
    ...(localAddress === undefined ? {} : { localAddress }),
  })
  outgoing.once('error', reject)
  outgoing.once('response', (response) => {
    text(response).then(
      (reply) => resolve({ status: response.statusCode ?? 0, body: reply }),
      reject,
    )
  })
  outgoing.end(body)
  try {
    const reply = await promise
    return { ...reply, code: JSON.parse(reply.body).error?.code }
  } finally {
    agent.destroy()
  }
}
