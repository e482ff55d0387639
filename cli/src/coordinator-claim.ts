import type { Secret } from '@holdfast/base'
import { statusRoutes } from '@holdfast/protocol'
import type { Context } from './command.ts'
import { passwordFrom, signIn } from './coordinator-place.ts'
import type { Input } from './input.ts'
import type { Client } from './node-place.ts'

/** Who owns a coordinator from now on. */
export interface Claimed {
  cluster: string
  url: string
  identity: string
  user: string
  /** Of the API token that was written down, milliseconds since 1970. */
  expires: number
}

/**
 * Claims a coordinator with the one-time token of its machine and a new password, and logs in.
 * @param oldState `give up` archives the state that is there; without it there must be none
 * @throws Fault cli.no_terminal, and those of the coordinator
 */
export async function claimWith(
  token: Secret,
  client: Client,
  input: Input,
  context: Context,
  oldState?: 'give up',
): Promise<Claimed> {
  const user = input.text('user') ?? 'admin'
  using password = await passwordFrom(input, context, user)
  const { cluster } = await client.call(statusRoutes.claim, {
    body: {
      token: token.reveal().toString('utf8'),
      user,
      password: password.reveal().toString('utf8'),
      ...(oldState === undefined ? {} : { recoveryOfOldState: oldState }),
    },
  })
  const { expires } = await signIn(client, context, user, password, [])
  const { url, identity } = client.place
  return { cluster, url, identity, user, expires }
}
