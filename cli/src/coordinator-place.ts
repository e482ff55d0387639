import { join } from 'node:path'
import {
  ensureDirectory,
  parseJsonObject,
  readIfPresent,
  type Secret,
  writeDurable,
} from '@holdfast/base'
import { ApiClient, shownIdentity } from '@holdfast/link/api-client'
import { type Role, userRoutes } from '@holdfast/protocol'
import type { Context } from './command.ts'
import { cliFault } from './faults.ts'
import { fleetOf } from './fleet-state.ts'
import type { Input } from './input.ts'
import { readSecretText } from './streams.ts'

// Which coordinator a command talks to, and as whom. `claim` and `login` write it down: address,
// pinned identity and an API token, in a file that only its owner can read.

export interface SavedCoordinator {
  url: string
  identity: string
  user: string
  token: string
  /** Milliseconds since 1970. */
  expires: number
}

/** What a login is written to, below the state directory. */
export const loginFileName = 'coordinator.json'
/** Days that a token of `login` is good for. */
const tokenDays = 30

export function savedFile(context: Context): string {
  return join(context.settings.stateDirectory, loginFileName)
}

export async function readSaved(context: Context): Promise<SavedCoordinator | undefined> {
  const text = await readIfPresent(savedFile(context), 65_536)
  if (text === undefined) return undefined
  const found = parseJsonObject(text.toString('utf8'), savedFile(context))
  const { url, identity, user, token, expires } = found
  if (![url, identity, user, token].every((each) => typeof each === 'string')) return undefined
  return {
    url: String(url),
    identity: String(identity),
    user: String(user),
    token: String(token),
    expires: Number(expires),
  }
}

/**
 * A client for the coordinator that the command line names, or else the one that was logged in to.
 * @throws Fault cli.coordinator_unknown, cli.identity_unconfirmed
 */
export async function clientFrom(input: Input, context: Context): Promise<ApiClient> {
  const saved = await readSaved(context)
  const url = input.text('coordinator') ?? saved?.url
  if (url === undefined) throw unknownCoordinator(context)
  const known = saved?.url === url ? saved.identity : undefined
  const identity = input.text('identity') ?? known ?? (await confirmIdentity(url, context))
  // The token goes to the identity that gave it, whatever address it has now.
  const token = saved?.identity === identity ? { token: saved.token } : {}
  return new ApiClient({ url, identity, ...token }, context.signal)
}

/** Nobody said which coordinator; somebody who forgot to change into the local fleet is told so. */
export function unknownCoordinator({ settings }: Context): Error {
  const fleet = fleetOf(settings)
  const login =
    'name it: --coordinator https://HOST:PORT --identity DIGEST, or holdfast coordinator login'
  return cliFault('cli.coordinator_unknown', 'no coordinator is given and none is logged in to', {
    hint: fleet === undefined ? login : `for the local fleet: cd ${fleet}; otherwise ${login}`,
  })
}

/** The pin of a coordinator that files come from; nothing is asked over the network. */
export async function pinFrom(input: Input, context: Context): Promise<string> {
  const identity = input.text('identity') ?? (await readSaved(context))?.identity
  if (identity !== undefined) return identity
  throw unconfirmed('the coordinator', 'no identity is given')
}

async function confirmIdentity(url: string, context: Context): Promise<string> {
  const shown = await shownIdentity(url, context.signal)
  if (context.terminal === undefined) throw unconfirmed(url, 'nobody is there to confirm it')
  const question = `${url} shows the identity ${shown}. Is it the one you were told on another channel?`
  if (await context.terminal.confirm(question, context.signal)) return shown
  throw unconfirmed(url, 'it was not confirmed')
}

function unconfirmed(url: string, reason: string): Error {
  return cliFault(
    'cli.identity_unconfirmed',
    `the identity of ${url} is not known here: ${reason}`,
    {
      hint: 'give --identity DIGEST: holdfast coordinator serve prints it when it starts',
    },
  )
}

/** The password, from a file or the terminal. */
export async function passwordFrom(input: Input, context: Context, user: string): Promise<Secret> {
  const file = input.text('password-file')
  if (file !== undefined) return await readSecretText(file)
  if (context.terminal !== undefined)
    return await context.terminal.secret(`Password of ${user}`, context.signal)
  throw cliFault('cli.no_terminal', 'nobody is there to type the password', {
    hint: 'give it with --password-file FILE, or - for standard input',
  })
}

/** Signs in, makes a token with these scopes, ends the session, and writes the token down. */
export async function signIn(
  client: ApiClient,
  context: Context,
  user: string,
  password: Secret,
  wanted: readonly Role[],
): Promise<SavedCoordinator & { scopes: readonly Role[] }> {
  const body = { user, password: password.reveal().toString('utf8') }
  const { url, identity } = client.place
  // Without the token that was saved earlier: it may have expired, which is why somebody signs in.
  using alone = new ApiClient({ url, identity }, context.signal)
  const { value, cookie } = await alone.send(userRoutes.login, { body })
  const headers = { cookie, 'x-csrf-token': value.csrf }
  const scopes = wanted.length === 0 ? value.roles : [...wanted]
  try {
    const label = `holdfast of ${context.settings.actor}`.slice(0, 100)
    const made = await alone.call(userRoutes.createToken, {
      headers,
      body: { label, scopes, days: tokenDays },
    })
    const saved = { url, identity, user, token: made.token, expires: made.expires }
    await ensureDirectory(context.settings.stateDirectory)
    await writeDurable(savedFile(context), `${JSON.stringify(saved)}\n`, { mode: 0o600 })
    return { ...saved, scopes: made.scopes }
  } finally {
    await alone.call(userRoutes.logout, { headers })
  }
}
