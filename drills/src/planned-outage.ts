import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { listVault, maintainVault, passVault, regenVault, type VaultDeps } from '@holdfast/vault'
import type { Drill } from './drill.ts'
import {
  opens,
  passphraseIsDead,
  passphraseOpens,
  setFleet,
  staysShut,
  unattended,
} from './scene.ts'

/** Work on the network is announced: the passphrase goes with the technician, and dies afterwards. */
export const plannedOutage: Drill = {
  name: 'planned-outage',
  title: 'A network outage that was announced',
  summary:
    'The passphrase of one slot is shown beforehand, opens the node while no key server answers, and is dead after the slot was regenerated.',
  run: async (stage) => {
    const { timeline } = stage
    const { servers, volume, deps } = await setFleet(stage)
    const machine = unattended(volume.stateDirectory)
    const keyslot = await automaticSlot(deps, volume.device)
    using shown = await passVault(deps, volume, keyslot)
    timeline.note('the passphrase is shown to the technician', { keyslot, length: shown.length })
    const log = await readFile(join(await vaultFolder(deps, volume), 'audit.log'), 'utf8')
    timeline.proves('the audit log says so, without the passphrase', isAudited(log, shown))
    const marked = (await listVault(deps, volume)).slots.find((slot) => slot.keyslot === keyslot)
    timeline.proves('the slot is marked for regeneration', marked?.regenerate !== undefined)

    for (const server of servers) await server.stop()
    timeline.note('the network is down: no key server answers')
    await staysShut(stage, 'the node does not open by itself', machine, volume)
    await passphraseOpens(stage, 'the technician types the passphrase', volume, shown)
    const early = await maintainVault(deps, volume)
    timeline.proves('regeneration waits for the network', early.waiting.length === 1)
    await passphraseOpens(stage, 'and the passphrase is still good', volume, shown)

    for (const server of servers) await server.start()
    timeline.note('the network is back')
    const { removed, keyslot: fresh } = await regenVault(deps, volume, keyslot)
    timeline.note('the slot is regenerated', { from: removed?.keyslot, to: fresh })
    await passphraseIsDead(stage, 'the old passphrase is dead', volume, shown)
    await opens(stage, 'the node opens by itself', machine, volume)
    const after = await maintainVault(deps, volume)
    timeline.proves('nothing is left to do', after.waiting.length + after.regenerated.length === 0)
  },
}

/** The keyslot of the volume's one automatic binding. */
async function automaticSlot(deps: VaultDeps, device: string): Promise<number> {
  const { slots } = await listVault(deps, { device })
  const found = slots.find(({ purpose }) => purpose === 'automatic')
  if (found === undefined) throw new Error(`${device} has no automatic binding`)
  return found.keyslot
}

async function vaultFolder(deps: VaultDeps, volume: { device: string }): Promise<string> {
  return join(deps.stateDirectory, 'vaults', (await listVault(deps, volume)).uuid)
}

function isAudited(log: string, passphrase: { reveal(): Buffer }): boolean {
  return log.includes('"event":"pass"') && !log.includes(passphrase.reveal().toString('utf8'))
}
