import { createPublicKey } from 'node:crypto'
import { isFault, type Secret } from '@holdfast/base'
import { encryptJwe } from '@holdfast/crypto'
import { nodeRoutes, type RecoveryWay } from '@holdfast/protocol'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { toldFault } from './node-failure.ts'
import { LockedNode } from './node-locked.ts'
import { limitsOf, order } from './node-order.ts'
import { type Client, type Node, nodeFrom } from './node-place.ts'
import { exportShares, holdersGiven, madeFor, openRecovery } from './node-recovery.ts'
import { readSecretText } from './streams.ts'

// Opening a locked node by people: the passphrase comes from the holders' way or is typed, is sealed
// for the node's exchange key at once, and is shown nowhere. It reaches the node through the
// coordinator, or directly at its peer port when the coordinator is away.

/** A locked node, however it is reached. */
interface Locked {
  name: string
  /** Its id, which is pinned: what it shows must have been made for it. */
  node: string
  open: boolean
  /** True while the vault has its temporary first way in. */
  genesis: boolean | undefined
  /** PEM. */
  exchange: string
  recovery: readonly RecoveryWay[]
  /** Hands in a compact JWE; resolves when the vault is open. */
  push(sealed: string): Promise<void>
}

/** `holdfast node unlock` */
export async function unlockAction(input: Input, context: Context): Promise<Outcome> {
  const at = input.text('at')
  if (at !== undefined) {
    using node = await LockedNode.connect(at, input.text('pin'), context)
    const { node: id, name, phase, exchange, recovery } = await node.state()
    const push = async (sealed: string) => void (await node.unlock(sealed))
    const open = phase === 'open'
    const locked = { name, node: id, open, genesis: undefined, exchange, recovery, push }
    return await unlock(locked, input, context)
  }
  using found = await nodeFrom(input, context).catch((error) => withoutCoordinator(error))
  const { client, node } = found
  const asked = await order(client, node, { kind: 'status' }, limitsOf(input), context)
  if (!asked.ended) throw cliFault('cli.usage', 'unlocking cannot go on unwatched')
  const { report, exchange, recovery } = asked.data
  await requireNobodyElses(client, node, input.text('made-for'))
  const locked: Locked = {
    name: node.name,
    node: node.node,
    open: report.phase === 'open',
    genesis:
      report.ways.some(({ label }) => label === 'temporary') || report.guardians.length === 0,
    exchange,
    recovery,
    push: async (sealed) => {
      await order(client, node, { kind: 'unlock', arguments: { sealed } }, limitsOf(input), context)
    },
  }
  return await unlock(locked, input, context)
}

async function unlock(node: Locked, input: Input, context: Context): Promise<Outcome> {
  const { name, exchange } = node
  const folder = input.text('export-shares')
  if (folder !== undefined) {
    const recovery = madeFor(node, node.recovery, input.text('made-for'))
    return await exportShares(name, recovery, folder)
  }
  if (node.open) {
    return { json: { name, phase: 'open', changed: false }, text: `${name} is open already` }
  }
  if (input.flag('genesis')) requireGenesis(node)
  using passphrase = await passphraseFor(node, input, context)
  await node.push(await encryptJwe({ alg: 'ECDH-ES' }, createPublicKey(exchange), passphrase))
  return { json: { name, phase: 'open', changed: true }, text: `${name} is open` }
}

/** A header that came back after panic 2 was of an identity that has gone, never of a living node. */
async function requireNobodyElses(
  client: Client,
  { name, node }: Node,
  id: string | undefined,
): Promise<void> {
  if (id === undefined || id === node) return
  const { nodes } = await client.call(nodeRoutes.list)
  const other = nodes.find((each) => each.node === id && each.phase !== 'wiped')
  if (other === undefined) return
  throw cliFault('cli.usage', `${id} is ${other.name}, whose vault ${name} must not get open`, {
    hint: `after panic 2 it is the id that the node had before; a node that shows the way of another one lies: holdfast node freeze ${name}`,
  })
}

/** A coordinator that is away or sealed keeps nobody from opening a node. */
function withoutCoordinator(error: unknown): never {
  if (!isFault(error)) throw error
  const { code, kind } = error
  if (code !== 'coordinator.not_in_this_state' && kind !== 'unavailable') throw error
  throw toldFault(code, error.message, {
    cause: error,
    hint: 'go straight to the node: holdfast node unlock --at HOST:9998 --pin ID --key FILE --key FILE; or find out what is wrong: holdfast doctor',
  })
}

function requireGenesis({ name, genesis }: Locked): void {
  if (genesis !== false) return
  throw cliFault('cli.genesis_over', `${name} is guarded by peers and opens by itself`, {
    hint: `why does it not? holdfast doctor node ${name}; its holders can still open it, without --genesis`,
  })
}

async function passphraseFor(node: Locked, input: Input, context: Context): Promise<Secret> {
  const { name } = node
  const file = input.text('passphrase-file')
  if (file !== undefined) return await readSecretText(file)
  if (input.has('key') || input.has('share') || input.flag('genesis')) {
    const recovery = madeFor(node, node.recovery, input.text('made-for'))
    const holders = await holdersGiven(name, recovery, input, context)
    return await openRecovery(name, recovery, holders, context.signal)
  }
  if (context.terminal !== undefined) {
    return await context.terminal.secret(`A passphrase of the vault of ${name}`, context.signal)
  }
  throw cliFault('cli.no_terminal', 'no key is given and nobody is there to type a passphrase', {
    hint: 'holders: --key FILE for each; a passphrase: --passphrase-file FILE, or - for standard input',
  })
}
