import { join } from 'node:path'
import { readIfPresent } from '@holdfast/base'
import { coordinatorFault, prepareClaim } from '@holdfast/coordinator'
import { ceremonyRoutes, statusRoutes } from '@holdfast/protocol'
import { ceremonyText } from './ceremony-text.ts'
import type { Context, Outcome } from './command.ts'
import { claimWith } from './coordinator-claim.ts'
import { clientFrom } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { readSecretText } from './streams.ts'

// Giving an old state up: its holders agree, or somebody at the machine itself shows the token of its
// console. Never over the network alone, and never without saying which state is meant.

/** `holdfast coordinator console-token`: on the coordinator's own machine. */
export async function consoleTokenAction(input: Input): Promise<Outcome> {
  const directory = input.requiredText('directory')
  const names = ['identity.pem', 'identity.pub'] // the second is a restored one's
  const found = await Promise.all(names.map((name) => readIfPresent(join(directory, name), 4096)))
  if (found.every((each) => each === undefined))
    throw coordinatorFault('coordinator.identity_absent', `${directory} is not a coordinator's`, {
      hint: 'give the one that holdfast coordinator serve runs with',
    })
  const file = await prepareClaim(directory)
  return {
    json: { file },
    text: `whoever has ${file} may give the state up, once: holdfast coordinator dismiss --token-file ${file}\nnot needed after all? remove the file`,
  }
}

/** `holdfast coordinator dismiss` */
export async function dismissAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const file = input.text('token-file')
  if (file !== undefined) return await byToken(file, input, context)
  const ceremony = await client.call(ceremonyRoutes.open, { body: { kind: 'dismissal' } })
  return { json: ceremony, text: await ceremonyText(ceremony, context) }
}

/** The state is archived and given up, and the coordinator is claimed anew by whoever is here. */
async function byToken(file: string, input: Input, context: Context): Promise<Outcome> {
  using token = await readSecretText(file)
  using client = await clientFrom(input, context)
  const { cluster: old, state } = await client.call(statusRoutes.status)
  if (old === undefined)
    throw cliFault('cli.usage', `it is ${state}: nobody's state is there to be given up`, {
      hint: 'take it: holdfast coordinator claim',
    })
  await confirm(old, input, context)
  const claimed = await claimWith(token, client, input, context, 'give up')
  return {
    json: { dismissed: old, ...claimed },
    text: `gave up ${old} and archived it on its machine; claimed as cluster ${claimed.cluster}, ${claimed.user} is logged in\nnext: holdfast manifest set FILE`,
  }
}

/** Only who names the cluster means it. */
async function confirm(cluster: string, input: Input, context: Context): Promise<void> {
  const question = `This gives the whole state of ${cluster} up. Type its id to do so`
  const typed =
    input.text('confirm') ?? (await context.terminal?.line(question, context.signal)) ?? ''
  if (typed.trim() === cluster) return
  throw cliFault(
    'cli.confirmation_refused',
    `the state of ${cluster} is not given up: its id was not given`,
    {
      hint: `if that is what you want: --confirm ${cluster}`,
    },
  )
}
