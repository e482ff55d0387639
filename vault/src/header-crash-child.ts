import type { JsonWebKey } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import { readFile } from 'node:fs/promises'
import { formatPolicy, type Policy, parsePolicy } from '@holdfast/seal'
import type { VolumeRef } from './cryptsetup.ts'
import { readBackup } from './header-backup.ts'
import { frozen, pinsWith } from './header-fixture.ts'
import { restoreHeader, resumeRestore } from './header-restore.ts'
import { keepBackups } from './header-stale.ts'
import { executePanic, resumePanic } from './panic.ts'
import type { VaultDeps } from './state.ts'

// For the crash tests: does one operation in a process of its own and dies, as by a power cut, right
// after the effect of the given number. Arguments: that number, and a file with an `Order`.

/** What a crash test wants done. */
export interface Order {
  action: 'restore' | 'resume_restore' | 'panic' | 'resume_panic' | 'keep_backups'
  volume: VolumeRef
  uuid: string
  state: string
  keys: JsonWebKey[]
  policy: { pin: string; config: object }
  /** Path of the backup to restore. */
  backup: string
  code: string
}

/** A policy as an order carries it. */
export function orderPolicy(policy: Policy): Order['policy'] {
  return formatPolicy(policy)
}

async function obey(order: Order): Promise<void> {
  const { volume, uuid, code } = order
  const deps: VaultDeps = {
    pins: pinsWith(order.keys),
    stateDirectory: order.state,
    clock: frozen,
  }
  switch (order.action) {
    case 'restore':
      await restoreHeader(deps, volume, await readBackup(order.backup))
      return
    case 'resume_restore':
      await resumeRestore(deps, uuid)
      return
    case 'panic':
      await executePanic(deps, volume, uuid, code)
      return
    case 'resume_panic':
      await resumePanic(deps, uuid)
      return
    case 'keep_backups': {
      const policy = parsePolicy(order.policy.pin, order.policy.config)
      await keepBackups(deps, policy)({ volume })
      return
    }
    default:
      order.action satisfies never
  }
}

const [last, file] = process.argv.slice(2)
if (file !== undefined) {
  let effects = 0
  subscribe('holdfast:effect', () => {
    effects += 1
    if (effects === Number(last)) process.kill(process.pid, 'SIGKILL')
  })
  await obey(JSON.parse(await readFile(file, 'utf8')))
}
