import { subscribe } from 'node:diagnostics_channel'
import { text } from 'node:stream/consumers'
import { parseJsonObject, Secret } from '@holdfast/base'
import { createPins, parsePolicy } from '@holdfast/seal'
import { adoptVault } from './adopt.ts'
import { addOwnerPassphrase, bindVault, editVault, regenVault } from './bind.ts'
import { createVault } from './create.ts'
import { maintainVault } from './maintain.ts'
import { passVault } from './pass.ts'
import { resumeVault } from './resume.ts'
import { unbindVault } from './unbind.ts'

// Runs one operation of the crash tests in a process of its own and kills it, as a power cut would,
// right after the n-th effect. The order comes as JSON on standard input.

export const crashOperations = [
  'bind',
  'bind-recovery',
  'bind-owner',
  'regen',
  'edit',
  'unbind',
  'create',
  'adopt',
  'maintain',
  'pass',
  'resume',
] as const

/** What the child is to do. */
export interface CrashOrder {
  operation: (typeof crashOperations)[number]
  device: string
  stateDirectory: string
  policy: { pin: string; config: unknown }
  recovery: { pin: string; config: unknown }
  passphrase: string
  keyslot: number
  /** Die after this many effects. */
  killAt: number
}

async function carryOut(order: CrashOrder): Promise<void> {
  const deps = { pins: createPins(), stateDirectory: order.stateDirectory }
  const volume = { device: order.device }
  const policy = parsePolicy(order.policy.pin, order.policy.config)
  const recovery = parsePolicy(order.recovery.pin, order.recovery.config)
  using passphrase = Secret.copy(order.passphrase)
  using added = Secret.copy('the second passphrase')
  const derivation = { kind: 'pbkdf2', iterations: 1000 } as const
  const operations: Record<CrashOrder['operation'], () => Promise<unknown>> = {
    bind: () => bindVault(deps, volume, policy, { passphrase }),
    'bind-recovery': () =>
      bindVault(deps, volume, recovery, { passphrase, purpose: 'recovery', unproven: true }),
    'bind-owner': () => addOwnerPassphrase(deps, volume, added, { passphrase, derivation }),
    regen: () => regenVault(deps, volume, order.keyslot),
    edit: () => editVault(deps, volume, order.keyslot, policy),
    unbind: () => unbindVault(deps, volume, order.keyslot, { passphrase, force: true }),
    create: () =>
      createVault(deps, volume, {
        automatic: policy,
        recovery,
        unproven: true,
        owner: passphrase,
        ownerDerivation: derivation,
      }),
    adopt: () => adoptVault(deps, volume, { passphrase }),
    maintain: () => maintainVault(deps, volume),
    pass: () => passVault(deps, volume, order.keyslot),
    resume: () => resumeVault(deps, volume),
  }
  await operations[order.operation]()
}

/** Reads the order, arms the kill and goes. Only called when started as a program. */
export async function crashChild(): Promise<void> {
  const order = parseJsonObject(await text(process.stdin), 'the order') as unknown as CrashOrder // the test wrote it
  let effects = 0
  subscribe('holdfast:effect', () => {
    effects += 1
    if (effects === order.killAt) process.kill(process.pid, 'SIGKILL')
  })
  await carryOut(order)
  process.stdout.write(`${effects}\n`)
}
