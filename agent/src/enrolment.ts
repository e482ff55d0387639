import { createPublicKey, X509Certificate } from 'node:crypto'
import type { Clock } from '@holdfast/base'
import { keyId, openEnrolmentPort } from '@holdfast/link'
import type { Enrolment, NodeCard } from '@holdfast/protocol/frames'
import { agentFault } from './faults.ts'
import { type NodeKeys, publicKeys } from './identity.ts'
import type { LifeEvent } from './life-event.ts'
import { automaticPolicy, recoveryPolicy } from './node-policy.ts'
import type { NodeVault } from './node-vault.ts'

// A new machine's port for being enrolled. It is open as long as the node is nobody's, and never again
// after: an accepted enrolment is in the boot state before the coordinator hears that it was.

export interface EnrolmentDeskOptions {
  keys: NodeKeys
  vault: NodeVault
  device: string
  host?: string
  /** 0 takes a free one. */
  port: number
  ports: NodeCard['ports']
  onCode: (code: string) => void
  onOpen: (port: number) => void
  onWrongOffer: (remote: string, replaced: boolean) => void
  tell: (event: LifeEvent) => Promise<boolean>
  clock: Clock
  signal: AbortSignal
}

/** How long the port stays for a coordinator that did not get the answer, in milliseconds. */
const grace = 2_000

/** Serves the enrolment port until the signal. */
export async function serveEnrolment(options: EnrolmentDeskOptions): Promise<void> {
  const { keys, host, port, onCode, onOpen, onWrongOffer, clock, signal } = options
  let accepted = false
  await using opened = await openEnrolmentPort({
    port,
    ...(host === undefined ? {} : { host }),
    identity: keys.identity,
    card: await cardOf(options),
    onCode,
    onWrongOffer,
    onEnrolment: async (enrolment) => {
      // Accepting ends this function, which must know by then.
      accepted = true
      try {
        await accept(options, enrolment)
      } catch (error) {
        accepted = false
        throw error
      }
    },
  })
  onOpen(opened.port)
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  if (accepted) await clock.sleep(grace)
}

const headers: Partial<Record<string, NodeCard['device']['header']>> = {
  ours: 'known',
  restored: 'restored',
}

async function cardOf({ keys, vault, device, ports }: EnrolmentDeskOptions): Promise<NodeCard> {
  const { found } = await vault.probe()
  // What an interrupted attempt of this very node has left is nothing that anybody could miss.
  const empty = found === 'nothing' || found === 'unfinished'
  const header = empty ? 'none' : (headers[found] ?? 'foreign')
  return {
    ...(await publicKeys(keys)),
    ports,
    device: { path: device, bytes: await vault.size(), header },
  }
}

/** Everything that would make the vault impossible is said now, while it costs nothing. */
async function accept(options: EnrolmentDeskOptions, enrolment: Enrolment): Promise<void> {
  const { keys, vault, tell } = options
  checkCertificate(keys, enrolment)
  recoveryPolicy(enrolment)
  if (enrolment.genesis || enrolment.pins !== undefined) automaticPolicy(keys.node, enrolment)
  const { found, text } = await vault.probe()
  if (found === 'ours' || found === 'occupied')
    throw agentFault('agent.enrolment_refused', `the disk is in use: ${text}`, {
      hint: 'nothing is formatted over it; wipe the disk on the node first if its data may go',
    })
  if (await tell({ kind: 'accepted', enrolment })) return
  throw agentFault('agent.enrolment_refused', 'this node has been enrolled already')
}

function checkCertificate(keys: NodeKeys, enrolment: Enrolment): void {
  try {
    createPublicKey(enrolment.commandKey)
    const own = new X509Certificate(enrolment.certificate)
    const authority = new X509Certificate(enrolment.authority)
    if (keyId(own.publicKey) === keys.node && own.verify(authority.publicKey)) return
  } catch {
    // Said below, like a certificate for another key.
  }
  throw agentFault('agent.enrolment_refused', "the certificate is not for this node's key")
}
