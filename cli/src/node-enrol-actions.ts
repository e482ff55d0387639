import { Secret, writeDurable } from '@holdfast/base'
import { type inviteSchema, nodeRoutes } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context, Outcome } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { age, moment } from './format.ts'
import type { Input } from './input.ts'
import type { Client } from './node-place.ts'
import { table } from './output.ts'
import { readSecretText } from './streams.ts'

// Invites and enrolment. Token and code are secrets: they come from a file, from standard input or
// from the terminal, and never from an argument, which every user of this machine could read.

type Invite = z.output<typeof inviteSchema>

function inviteBody(input: Input) {
  const minutes = input.count('minutes', 1, 10_080)
  const uses = input.count('uses', 1, 10_000)
  const [label, domain] = [input.text('label'), input.text('domain')]
  return {
    ...(minutes === undefined ? {} : { minutes }),
    ...(uses === undefined ? {} : { uses }),
    ...(label === undefined ? {} : { label }),
    ...(domain === undefined ? {} : { domain }),
  }
}

/** `holdfast node invite` */
export async function inviteAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const invite = await client.call(nodeRoutes.invite, { body: inviteBody(input) })
  const file = input.text('out')
  const { token, ...shown } = invite
  const good = `good for ${invite.uses} ${invite.uses === 1 ? 'node' : 'nodes'} until ${moment(invite.expires)}`
  if (file === undefined) {
    context.streams.err(`${good}; it is shown this once`)
    return { json: invite, text: token }
  }
  await writeDurable(file, `${token}\n`, { mode: 0o600 })
  return {
    json: { ...shown, file },
    text: `wrote ${file}, ${good}\nnext: holdfast node enrol HOST --name NAME --invite-file ${file}`,
  }
}

/** `holdfast node invites` */
export async function invitesAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const revoked = input.text('revoke')
  if (revoked !== undefined) {
    await client.call(nodeRoutes.revokeInvite, { params: { id: revoked } })
    return { json: { revoked }, text: `invite ${revoked} is revoked` }
  }
  const { invites } = await client.call(nodeRoutes.invites)
  return { json: invites, text: await invitesText(invites, context.clock.now()) }
}

async function invitesText(invites: readonly Invite[], now: number): Promise<string> {
  if (invites.length === 0) return 'none; make one: holdfast node invite'
  const rows = invites.map(({ id, label, expires, uses, used, reserved, domain = '' }) => [
    id,
    label,
    domain,
    `${used} of ${uses}${reserved > 0 ? `, ${reserved} under way` : ''}`,
    expires > now ? `in ${age(now, expires)}` : 'expired',
  ])
  return await table(['ID', 'LABEL', 'DOMAIN', 'USED', 'EXPIRES'], rows)
}

/** `holdfast node enrol` */
export async function enrolAction(input: Input, context: Context): Promise<Outcome> {
  const address = input.requiredWord(0, 'HOST')
  const name = input.requiredText('name')
  refuseBothFromStdin(input)
  using client = await clientFrom(input, context)
  using code = await codeFrom(input, context, address)
  const begun = await withInvite(client, input, name, (invite) =>
    client.call(nodeRoutes.enrol, {
      body: {
        address,
        name,
        genesis: input.flag('genesis'),
        code: code.reveal().toString('utf8').trim(),
        invite: invite.reveal().toString('utf8').trim(),
      },
    }),
  )
  if (input.flag('no-wait')) {
    return { json: begun, text: `${begun.enrolment}\n${name} has accepted (${begun.node})` }
  }
  await untilEnrolled(client, begun, input, context)
  return {
    json: { ...begun, state: 'enrolled', name },
    text: `${name} is enrolled: its vault was closed and opened again (${begun.node})`,
  }
}

function refuseBothFromStdin(input: Input): void {
  if (input.text('code-file') !== '-' || input.text('invite-file') !== '-') return
  throw cliFault('cli.usage', 'only one of code and invite can come from standard input', {
    hint: 'leave --invite-file out: an invite for this one node is then made',
  })
}

async function codeFrom(input: Input, context: Context, address: string): Promise<Secret> {
  const file = input.text('code-file')
  if (file !== undefined) return await readSecretText(file)
  const question = `The code on the console of ${address}`
  if (context.terminal !== undefined) return await context.terminal.secret(question, context.signal)
  throw cliFault('cli.no_terminal', 'nobody is there to type the code on the console of the node', {
    hint: 'give it with --code-file FILE, or - for standard input',
  })
}

/** Minutes that an invite made on the spot is good for. */
const ownInviteMinutes = 60

/** Uses the invite of the command line, or makes one for this node, which goes again on failure. */
async function withInvite<T>(
  client: Client,
  input: Input,
  name: string,
  use: (token: Secret) => Promise<T>,
): Promise<T> {
  const file = input.text('invite-file')
  if (file !== undefined) {
    using given = await readSecretText(file)
    return await use(given)
  }
  const domain = input.text('domain')
  const { id, token } = await client.call(nodeRoutes.invite, {
    body: {
      label: `for ${name}`,
      minutes: ownInviteMinutes,
      ...(domain === undefined ? {} : { domain }),
    },
  })
  using made = Secret.copy(token)
  try {
    return await use(made)
  } catch (error) {
    // It expires by itself if this fails too; the enrolment's own error matters more.
    await client.call(nodeRoutes.revokeInvite, { params: { id } }).catch(() => undefined)
    throw error
  }
}

const words: Readonly<Record<string, string>> = {
  reserved: 'the node is being asked',
  sent: 'the node has accepted; it waits for its guardians or begins',
  formatting: 'the node is formatting its vault',
  proving: 'the node is closing its vault and opening it again',
}

/** Follows an enrolment to its end. @throws Fault with the enrolment's own code, cli.command_pending */
async function untilEnrolled(
  client: Client,
  { enrolment: id, node }: { enrolment: string; node: string },
  input: Input,
  { clock, signal, json, streams }: Context,
): Promise<void> {
  const seconds = input.count('timeout', 1, 86_400) ?? 300
  const until = clock.now() + seconds * 1000
  let told = ''
  let trouble = ''
  for (let round = 1; ; round += 1) {
    const { state, code, message } = await client.call(nodeRoutes.enrolment, { params: { id } })
    if (state === 'enrolled') return
    if (state === 'failed') {
      throw cliFault('cli.enrolment_failed', message ?? 'the enrolment failed', {
        hint: 'the invite was given back; see the node itself: holdfast doctor node, on its console',
        details: { enrolment: id, ...(code === undefined ? {} : { code }) },
      })
    }
    if (state !== told && !json) streams.err(words[state] ?? state)
    told = state
    const seen = round % 8 === 0 ? await troubleOf(client, node) : trouble
    if (seen !== '' && seen !== trouble && !json) streams.err(`it tries again: ${seen}`)
    trouble = seen
    if (clock.now() >= until) {
      throw cliFault(
        'cli.command_pending',
        `the node is not enrolled after ${seconds} s: ${trouble === '' ? state : trouble}`,
        {
          hint: `it goes on by itself; look: holdfast doctor node ${node.slice(0, 12)}`,
          details: { enrolment: id, state },
        },
      )
    }
    await clock.sleep(250, signal)
  }
}

/** What keeps the node from going on, in its own words; empty when nothing does. */
async function troubleOf(client: Client, node: string): Promise<string> {
  try {
    const { report } = await client.call(nodeRoutes.get, { params: { node } })
    return report?.lastErrors[0] ?? ''
  } catch {
    return '' // it has no record yet, and the next look at the enrolment says what is wrong
  }
}
