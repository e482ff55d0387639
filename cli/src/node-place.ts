import { isFault } from '@holdfast/base'
import { nodeRoutes, type nodeSchema } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'

// Which node a command means: by its name, or by the beginning of its id.

export type Node = z.output<typeof nodeSchema>
export type Client = Awaited<ReturnType<typeof clientFrom>>

/** Fewer characters of an id are more likely a mistyped name. */
const shortestPrefix = 4

/**
 * The one node that a name, an id or its beginning means. A name counts before an id.
 * @throws Fault cli.node_unknown, cli.node_ambiguous
 */
export function pickNode(nodes: readonly Node[], wanted: string): Node {
  const named = nodes.find(({ name }) => name === wanted)
  if (named !== undefined) return named
  const found =
    wanted.length < shortestPrefix ? [] : nodes.filter(({ node }) => node.startsWith(wanted))
  const [only, ...others] = found
  if (only === undefined) {
    throw cliFault('cli.node_unknown', `there is no node "${wanted}"`, {
      hint: 'their names and ids: holdfast node list',
    })
  }
  if (others.length === 0) return only
  const names = found.map(({ name, node }) => `${name} (${node.slice(0, 12)})`).join(', ')
  throw cliFault('cli.node_ambiguous', `"${wanted}" may mean ${names}`, {
    hint: 'give the name, or more of the id',
  })
}

/** The node that a text means; a whole id is asked for alone, because a fleet may be large. */
export async function findNode(client: Client, wanted: string): Promise<Node> {
  if (/^[\w-]{43}$/.test(wanted)) {
    try {
      return await client.call(nodeRoutes.get, { params: { node: wanted } })
    } catch (error) {
      // 43 letters may also be a name.
      if (!isFault(error, 'node.unknown')) throw error
    }
  }
  const { nodes } = await client.call(nodeRoutes.list)
  return pickNode(nodes, wanted)
}

/** A client together with the node that the first word names. Dispose of the client. */
export async function nodeFrom(
  input: Input,
  context: Context,
): Promise<Disposable & { client: Client; node: Node }> {
  const client = await clientFrom(input, context)
  try {
    const node = await findNode(client, input.requiredWord(0, 'NAME'))
    return { client, node, [Symbol.dispose]: () => client[Symbol.dispose]() }
  } catch (error) {
    client[Symbol.dispose]()
    throw error
  }
}

/**
 * Makes sure that somebody means this very node: its name was typed at the terminal or given with
 * --confirm. Returns the name, which the coordinator checks again.
 * @param what what will happen, for the person at the terminal
 * @throws Fault cli.confirmation_refused
 */
export async function confirmedName(
  { name }: Node,
  what: readonly string[],
  input: Input,
  { terminal, streams, signal }: Context,
): Promise<string> {
  const given = input.text('confirm')
  if (given === name) return name
  if (given !== undefined) {
    throw cliFault('cli.confirmation_refused', `"${given}" is not the name of this node`, {
      hint: `it is --confirm ${name}, if that is the one you mean; nothing was done`,
    })
  }
  if (terminal === undefined) {
    throw cliFault('cli.confirmation_refused', `this needs the name of the node once more`, {
      hint: `add --confirm ${name}; nothing was done`,
    })
  }
  for (const line of what) streams.err(line)
  const typed = await terminal.line(`Type ${name} to do this`, signal)
  if (typed.trim() === name) return name
  throw cliFault('cli.confirmation_refused', 'that is not its name; nothing was done')
}
