import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { run, Secret } from '@holdfast/base'
import {
  answerRecoveryRequest,
  createPins,
  parsePolicy,
  parseRecoveryRequest,
  readRecoveryAnswer,
  requestDigest,
} from '@holdfast/seal'
import {
  applyAnswer,
  exportRequest,
  listVault,
  maintainVault,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { makeImage } from './local-fleet.ts'
import { makeOwned, opens, passphraseIsDead, setServers, staysShut, unattended } from './scene.ts'
import type { ServerProcess } from './server-process.ts'

/** A site without network, and a colleague beside the key servers. */
export const technicianRemoteSite: Drill = {
  name: 'technician-remote-site',
  title: 'A technician at a site without network',
  summary:
    'The technician exports a request, a colleague beside the key servers answers it, the answer opens the volume and is readable by nobody else; nothing but the two texts crosses. Done for a volume of ours and for one bound by clevis.',
  run: async (stage) => {
    const { directory } = stage
    const [server] = await setServers(stage, ['tang'])
    if (server === undefined) throw new Error('a server that was set is there')
    const machine = unattended(join(directory, 'state'))
    const ours = await makeOwned(stage, machine, 'ours', parsePolicy('tang', await server.pin()))
    const theirs = await clevisVolume(stage, server)
    for (const volume of [ours, theirs]) await recover(stage, machine, volume, server)
  },
}

async function recover(
  stage: Stage,
  machine: VaultDeps,
  volume: VolumeRef,
  server: ServerProcess,
): Promise<void> {
  const { timeline } = stage
  await server.stop()
  await staysShut(stage, 'the site has no network: the volume stays shut', machine, volume)
  const technician = generateKeyPairSync('x25519')
  const exported = await exportRequest(machine, volume, technician.publicKey)
  const { request, digest, keyslot } = exported
  timeline.note('the technician exports a request', { device: volume.device, keyslot, digest })

  await server.start()
  const answer = await answerAsColleague(stage, request)
  await server.stop()
  timeline.note('only the colleague had the network; the site still has none')

  const parsed = parseRecoveryRequest(request)
  using passphrase = await readRecoveryAnswer(answer, parsed, technician.privateKey)
  timeline.proves('neither text holds what opens the volume', !leaks(request, answer, passphrase))
  await refusesStrangers(stage, request, answer)
  const applied = { request, technician: technician.privateKey, testOnly: true }
  const unlocked = await applyAnswer(machine, volume, answer, applied)
  timeline.proves('the answer opens the volume at the site', unlocked.keyslot === keyslot)
  timeline.proves('the slot is marked for regeneration', await isMarked(machine, volume, keyslot))
  const early = await maintainVault(machine, volume)
  timeline.proves('which waits for the network', early.waiting.length === 1)

  await server.start()
  const { regenerated } = await maintainVault(machine, volume)
  timeline.proves('the network returns and the slot is regenerated', regenerated.length === 1)
  await passphraseIsDead(stage, 'what the technician had is dead', volume, passphrase)
  await opens(stage, 'the volume opens by itself', machine, volume)
}

/** What the colleague has: the text of the request and the network. No disk, no private key. */
async function answerAsColleague({ timeline }: Stage, request: string): Promise<string> {
  const parsed = parseRecoveryRequest(request)
  const answer = await answerRecoveryRequest(createPins(), parsed)
  const characters = { request: request.length, answer: answer.length }
  timeline.note('the colleague answers it', { characters, digest: requestDigest(parsed) })
  return answer
}

async function refusesStrangers(
  { timeline }: Stage,
  request: string,
  answer: string,
): Promise<void> {
  const stranger = generateKeyPairSync('x25519')
  await timeline.refuses(
    'a stranger cannot read the answer',
    ['seal.answer_foreign', 'seal.answer_malformed'],
    () => readRecoveryAnswer(answer, parseRecoveryRequest(request), stranger.privateKey),
  )
}

function leaks(request: string, answer: string, passphrase: Secret): boolean {
  const bytes = passphrase.reveal()
  const forms = [bytes.toString('utf8'), bytes.toString('base64url'), bytes.toString('hex')]
  return forms.some((form) => request.includes(form) || answer.includes(form))
}

async function isMarked(deps: VaultDeps, volume: VolumeRef, keyslot: number): Promise<boolean> {
  const { slots } = await listVault(deps, volume)
  return slots.some((slot) => slot.keyslot === keyslot && slot.regenerate !== undefined)
}

/** A volume that Holdfast has never seen: formatted by cryptsetup, bound by clevis. */
async function clevisVolume(
  { directory, timeline }: Stage,
  server: ServerProcess,
): Promise<VolumeRef> {
  const { device } = await makeImage(join(directory, 'clevis.img'), 32 * 1024 * 1024)
  using passphrase = Secret.copy('set by an installer')
  const cheap = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000', '--batch-mode']
  await run('cryptsetup', ['luksFormat', '--type', 'luks2', ...cheap, device], {
    input: passphrase,
  })
  const config = JSON.stringify(await server.pin())
  await run('clevis', ['luks', 'bind', '-f', '-k', '-', '-d', device, 'tang', config], {
    input: passphrase,
  })
  timeline.note('a volume is formatted by cryptsetup and bound by clevis', { device })
  return { device }
}
