import { messageOf, run, systemClock } from '@holdfast/base'
import { makeTunnelKey, startTunnel, tunnelPublicKey } from '@holdfast/link'
import type { Peer } from '@holdfast/protocol/documents'
import { NodeNetwork } from './node-network.ts'

// Runs inside a virtual machine whose kernel has WireGuard and which has no wireguard-go: two nodes'
// networks in a namespace each, joined by a cable. Prints one JSON line for each step; the test
// outside judges them.

interface Machine {
  namespace: string
  device: string
  outside: string
  inside: string
  key: ReturnType<typeof makeTunnelKey>
}

const port = 51_820
const [near, far] = ['near', 'far'].map(
  (namespace, index): Machine => ({
    namespace,
    device: `hf-${namespace}`,
    outside: `198.18.0.${index + 1}`,
    inside: `10.88.${index}.1`,
    key: makeTunnelKey(),
  }),
) as [Machine, Machine] // two names, two machines

function step(name: string, facts: Record<string, unknown>): void {
  process.stdout.write(`\nSTEP ${JSON.stringify({ step: name, ...facts })}\n`)
}

async function lay(): Promise<void> {
  for (const { namespace } of [near, far]) await run('ip', ['netns', 'add', namespace])
  const ends = ['name', 'eth0', 'netns', near.namespace, 'type', 'veth', 'peer', 'name', 'eth0']
  await run('ip', ['link', 'add', ...ends, 'netns', far.namespace])
  for (const { namespace, outside } of [near, far]) {
    await run('ip', ['-n', namespace, 'address', 'add', `${outside}/24`, 'dev', 'eth0'])
    for (const device of ['lo', 'eth0'])
      await run('ip', ['-n', namespace, 'link', 'set', 'dev', device, 'up'])
  }
}

function networkOf({ namespace, device, inside, key }: Machine, signal: AbortSignal): NodeNetwork {
  const tunnel = { name: device, namespace }
  const address = `${inside}/16`
  const onChange = () => undefined
  return NodeNetwork.start({ tunnel, key, port, address, onChange, clock: systemClock, signal })
}

function peerOf({ namespace, outside, inside, key }: Machine): Peer {
  return {
    ...{ node: namespace, name: namespace, relation: 'guardian', identity: '', urls: [] },
    ...{ address: inside, endpoint: `${outside}:${port}`, wireguard: tunnelPublicKey(key) },
  }
}

/** Its status, when it has a tunnel or has given up to make one. */
async function settled(network: NodeNetwork) {
  for (;;) {
    const status = await network.status()
    if (status.networkReason !== 'the tunnel is being made') return status
    await systemClock.sleep(50)
  }
}

/** True when the other end answers through the tunnel within some seconds. */
async function answers(from: Machine, to: Machine): Promise<boolean> {
  const words = ['busybox', 'ping', '-c', '1', '-w', '5', to.inside]
  const { code } = await run('ip', ['netns', 'exec', from.namespace, ...words], {
    accept: [0, 1],
    timeout: 30_000,
  })
  return code === 0
}

async function linksIn({ namespace }: Machine): Promise<string[]> {
  const { stdout } = await run('ip', ['-n', namespace, '-o', 'link', 'show'])
  return [...stdout.toString('utf8').matchAll(/^\d+: ([^:@]+)/gm)].map(([, name = '']) => name)
}

async function main(): Promise<void> {
  await lay()
  const stop = new AbortController()
  {
    await using one = networkOf(near, stop.signal)
    await using other = networkOf(far, stop.signal)
    // A tunnel that has nobody in it is up, and no way to anybody.
    step('alone', { ...(await settled(one)), answers: await answers(near, far) })
    await one.use([peerOf(far)])
    await other.use([peerOf(near)])
    let answered = false
    for (let tries = 0; tries < 10 && !answered; tries += 1) answered = await answers(near, far)
    step('together', {
      answers: answered,
      near: await one.status(),
      far: await other.status(),
      links: await linksIn(near),
      from: await other.outsideOf(near.inside),
      here: near.outside,
    })
    await other.use([{ ...peerOf(near), wireguard: tunnelPublicKey(makeTunnelKey()) }])
    step('stranger', { answers: await answers(near, far) })
  }
  step('over', { links: await linksIn(near) })
  const left = { name: near.device, namespace: near.namespace, address: `${near.inside}/16` }
  await startTunnel(left) // as a killed agent leaves it
  await using again = networkOf(near, stop.signal)
  step('again', { ...(await settled(again)), links: await linksIn(near) })
}

try {
  await main()
} catch (error) {
  step('failed', { text: messageOf(error) })
}
process.exit()
