import { createPrivateKey } from 'node:crypto'
import { peerPin, type WardIdentity } from '@holdfast/agent/guardian'
import { Secret } from '@holdfast/base'
import { createPins, open, parsePolicy, seal } from '@holdfast/seal'
import { median, quantile } from './statistics.ts'
import type { StormNode, UnlockPlan, UnlockReport } from './unlock-plan.ts'

// Nodes that open again after a power cut, all at the same moment, with everything it takes: a connection to
// each guardian, its nonce, the signed request, the answer, the shares put together. Their disks are not
// part of it. A node that fails tries again after a second, as the agent does.

const plaintext = 'the passphrase of a volume, fifty-four characters long'
const pause = 1_000
const mostTries = 60

/** Lets all wards open at once, `rounds` times. */
export async function runUnlocks(plan: UnlockPlan): Promise<UnlockReport> {
  const wards = await Promise.all(plan.wards.map((node) => prepare(plan, node)))
  const report: Record<string, number>[] = []
  for (let round = 0; round < plan.rounds; round += 1) {
    const start = performance.now()
    const outcomes = await openAll(wards, plan.inFlight, start)
    const times = outcomes.map(({ milliseconds }) => milliseconds)
    report.push({
      seconds: (performance.now() - start) / 1000,
      p50: median(times),
      p99: quantile(times, 0.99),
      failures: outcomes.filter(({ opened }) => !opened).length,
      tries: outcomes.reduce((sum, { tries }) => sum + tries, 0) / outcomes.length,
    })
  }
  return report
}

interface Ward {
  identity: WardIdentity
  sealed: string
}

async function prepare(plan: UnlockPlan, { node, key, certificate }: StormNode): Promise<Ward> {
  const own = { key: createPrivateKey(key), certificate }
  const identity = { node, identity: own.key, own, authority: plan.authority }
  const peers = plan.guardians.map(({ node: guardian, identity: pem, ready }) => ({
    ...{ guardian, identity: pem, ward: node, epoch: 1 },
    addresses: [`https://127.0.0.1:${ready.port}`],
    adv: { keys: [ready.keys[node] ?? {}] },
  }))
  const policy = parsePolicy('sss', { t: plan.threshold, pins: { peer: peers } })
  using secret = Secret.copy(plaintext)
  return { identity, sealed: await seal(createPins({ extra: [peerPin()] }), policy, secret) }
}

interface Outcome {
  opened: boolean
  tries: number
  /** From the common start. */
  milliseconds: number
}

/** One process cannot do the handshakes of hundreds of machines side by side: the rest wait here. */
async function openAll(wards: readonly Ward[], inFlight: number, start: number) {
  const outcomes: Outcome[] = []
  const queue = wards.values()
  const worker = async () => {
    for (const ward of queue) outcomes.push(await openOnce(ward, start))
  }
  await Promise.all(Array.from({ length: inFlight }, worker))
  return outcomes
}

async function openOnce({ identity, sealed }: Ward, start: number): Promise<Outcome> {
  const pins = createPins({ extra: [peerPin(identity)] })
  let tries = 0
  let opened = false
  while (!opened && tries < mostTries) {
    tries += 1
    try {
      using secret = await open(pins, sealed)
      opened = Buffer.from(secret.reveal()).toString('utf8') === plaintext
    } catch {
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())))
    }
  }
  return { opened, tries, milliseconds: performance.now() - start }
}
