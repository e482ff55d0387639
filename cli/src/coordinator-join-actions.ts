import { hostname } from 'node:os'
import { joinCluster, prepareJoin } from '@holdfast/coordinator'
import { statusRoutes } from '@holdfast/protocol'
import type { Context, Outcome } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import { moment } from './format.ts'
import type { Input } from './input.ts'
import { readSecretText } from './streams.ts'

/** `holdfast coordinator join-token`: on the machine of a running instance. */
export async function joinTokenAction(input: Input, context: Context): Promise<Outcome> {
  const directory = input.requiredText('directory')
  const { token, expires } = await prepareJoin(directory, context.clock)
  const until = `good once, until ${moment(expires)}`
  return {
    json: { token, expires },
    text: `${token}\n${until}; on the new machine: holdfast coordinator join --token-file FILE`,
  }
}

/** `holdfast coordinator join` */
export async function joinAction(input: Input, context: Context): Promise<Outcome> {
  const directory = input.requiredText('directory')
  const name = instanceName(input.text('instance') ?? hostname())
  using token = await readSecretText(input.requiredText('token-file'))
  using client = await clientFrom(input, context)
  const { identity, url } = client.place
  const text = token.reveal().toString('utf8').split('\n')[0] ?? ''
  const { cluster } = await joinCluster({
    directory,
    pinned: identity,
    ask: async (key) =>
      (await client.call(statusRoutes.join, { body: { token: text, key, name } })).sealed,
  })
  return {
    json: { directory, cluster, identity, from: url },
    text: `${directory} is an instance of cluster ${cluster}\nnext: holdfast coordinator serve --directory ${directory} --store FILE`,
  }
}

/** As the audit log takes it. */
function instanceName(text: string): string {
  const plain = text.toLowerCase().replaceAll(/[^a-z0-9._-]/g, '-')
  return plain.replace(/^[^a-z0-9]+/, '').slice(0, 63) || 'instance'
}
