import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Secret } from '@holdfast/base'
import { bindVault, createVault, listVault, unbindVault } from '@holdfast/vault'
import type { Drill } from './drill.ts'
import { makeImage, serversPolicy } from './local-fleet.ts'
import {
  makeOwned,
  opens,
  passphraseIsDead,
  passphraseOpens,
  setServers,
  staysShut,
  unattended,
} from './scene.ts'

/** A passphrase that somebody set before, and all key servers with their keys gone for good. */
export const backupPassphrase: Drill = {
  name: 'backup-passphrase',
  title: 'The backup passphrase',
  summary:
    'Every key server is lost for good with its keys. The owner passphrase that was set beforehand opens the volume and binds it to a new server; a volume without any such way back is refused from the start.',
  run: async (stage) => {
    const { directory, timeline, signal } = stage
    const old = await setServers(stage, ['old-1', 'old-2'])
    const machine = unattended(join(directory, 'state'))
    const policy = await serversPolicy(old, 1)
    const careless = await makeImage(join(directory, 'careless.img'), 32 * 1024 * 1024)
    await timeline.refuses(
      'a vault without a way back besides the key servers is not made',
      ['vault.last_way_in'],
      () => createVault(machine, careless, { automatic: policy, signal }),
    )
    const node = await makeOwned(stage, machine, 'node', policy)
    for (const server of old) {
      await server.kill()
      await rm(server.directory, { recursive: true })
    }
    timeline.note('both key servers and their keys are lost for good')

    await staysShut(stage, 'the node does not open by itself', machine, node)
    using wrong = Secret.copy('correct horse')
    await passphraseIsDead(stage, 'a wrong passphrase is refused', node, wrong)
    await passphraseOpens(stage, 'the backup passphrase opens it', node, node.owner)

    const fresh = await setServers(stage, ['new-1'])
    const gone = (await listVault(machine, node)).slots.find((s) => s.purpose === 'automatic')
    const passphrase = node.owner
    const { keyslot } = await bindVault(machine, node, await serversPolicy(fresh, 1), {
      passphrase,
      signal,
    })
    timeline.note('the node is bound to a new key server', { keyslot })
    await unbindVault(machine, node, gone?.keyslot ?? -1, { passphrase })
    await opens(stage, 'the node opens by itself again', machine, node)
    const { standing, slots } = await listVault(machine, node)
    const kinds = slots.map(({ purpose }) => purpose).sort()
    timeline.proves(
      'it has one automatic way in and the passphrase, both proven',
      standing.satisfied,
      {
        kinds,
      },
    )
  },
}
