import { randomBytes } from 'node:crypto'
import { Secret } from '@holdfast/base'
import { readRequestFile, shareAnswer } from '@holdfast/coordinator'
import type { ApiClient } from '@holdfast/link/api-client'
import { ceremonyRoutes, keyRoutes } from '@holdfast/protocol'
import { answer, answerFile, fetchRequest, type HolderKey, handIn } from './ceremony-holder.ts'
import { begin, isNow, type Scene, setCoordinator } from './ceremony-scene.ts'
import type { Drill, Stage } from './drill.ts'

/** Everything that can be handed in wrongly, and its code. */
export const answersRefused: Drill = {
  name: 'answers-refused',
  title: 'Wrong, old, repeated and foreign answers',
  summary:
    'Each is refused with its own code, changes nothing that others have answered, and is shown beside the name of its holder; the right answers then open it.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const scene = await setCoordinator(stage, { holders: 5, threshold: 3 })
    const { coordinator, owner, keys } = scene
    await owner.call(keyRoutes.seal)
    const anybody = cleanup.use(coordinator.client())
    const earlier = await earlierAnswer(stage, scene, anybody)
    const { id } = await begin(anybody, 'recovery')
    const [alice, bob, carol, dave] = keys
    if (!alice || !bob || !carol || !dave) throw new Error('there are five holders')
    await answer(anybody, id, alice)
    const attempt = new Attempt(anybody, id)
    await refuseStatements(stage, attempt, scene, earlier)
    await refuseShares(stage, attempt, bob, earlier)
    await timeline.refuses(
      'the same answer twice',
      ['ceremony.answer_duplicate'],
      async () => await answer(anybody, id, alice),
    )
    const after = await anybody.call(ceremonyRoutes.get, { params: { id } })
    const names = after.answered.map(({ holder }) => holder)
    timeline.proves('after all that exactly one has answered', names.join() === alice.name, {
      answered: names,
      rejected: after.rejected.map(({ holder, code }) => `${holder}: ${code}`),
    })
    for (const key of [bob, carol]) await answer(anybody, id, key)
    await isNow(stage, 'two right answers more open it', coordinator, { state: 'running' })
    await timeline.refuses('a fourth comes too late', ['ceremony.not_open'], () =>
      answer(anybody, id, dave),
    )
  },
}

/** What a holder kept from an earlier ceremony: the answer file, and the share of an older key. */
interface Earlier {
  ceremony: string
  request: string
  file: string
  share: string
}

/** A whole recovery, after which the data key is replaced and the coordinator sealed again. */
async function earlierAnswer(
  { timeline }: Stage,
  { coordinator, owner, keys }: Scene,
  anybody: ApiClient,
): Promise<Earlier> {
  const { id } = await begin(anybody, 'recovery')
  const [, bob] = keys
  if (bob === undefined) throw new Error('there are five holders')
  const request = await fetchRequest(anybody, id, bob.name)
  const file = await answerFile(bob, request, coordinator.identity)
  using share = await bob.unwrap(wrappedIn(request, coordinator.identity))
  for (const key of keys.slice(0, 3)) await answer(anybody, id, key)
  const { generation } = await owner.call(keyRoutes.rotate)
  await owner.call(keyRoutes.seal)
  timeline.note('recovered once, its data key replaced, sealed again', { generation })
  return { ceremony: id, request, file, share: shareAnswer(share) }
}

function wrappedIn(request: string, pin: string): Buffer {
  return Buffer.from(readRequestFile(request, pin).wrapped, 'base64url')
}

/** Hands in what a holder's key has signed, whatever it says. */
class Attempt {
  readonly client: ApiClient
  readonly id: string

  constructor(client: ApiClient, id: string) {
    this.client = client
    this.id = id
  }

  async statement(holder: string): Promise<string> {
    const params = { id: this.id, holder }
    return (await this.client.call(ceremonyRoutes.request, { params })).statement
  }

  async submit(holder: string, text: string, signer: HolderKey): Promise<void> {
    const statement = Buffer.from(text, 'utf8')
    const signature = await signer.sign(statement)
    const body = {
      holder,
      statement: statement.toString('base64url'),
      signature: signature.toString('base64url'),
    }
    await this.client.call(ceremonyRoutes.answer, { params: { id: this.id }, body })
  }
}

async function refuseStatements(
  { timeline }: Stage,
  attempt: Attempt,
  { keys }: Scene,
  earlier: Earlier,
): Promise<void> {
  const [, bob, carol] = keys
  if (!bob || !carol) throw new Error('there are five holders')
  const now = await attempt.statement('bob')
  const share = `share ${randomBytes(32).toString('hex')}\n`
  const cases: [string, string, () => Promise<unknown>][] = [
    [
      'signed by another key',
      'ceremony.signature_invalid',
      () => attempt.submit('bob', `${now}${share}`, carol),
    ],
    [
      'by somebody who is no holder',
      'ceremony.holder_unknown',
      () => attempt.submit('mallory', now, bob),
    ],
    [
      'the answer of the earlier ceremony',
      'ceremony.answer_foreign',
      () => handIn(attempt.client, attempt.id, earlier.file),
    ],
    [
      'that answer where it belongs: it is over',
      'ceremony.not_open',
      () => handIn(attempt.client, earlier.ceremony, earlier.file),
    ],
    [
      "another cluster's",
      'ceremony.answer_foreign',
      () => attempt.submit('bob', now.replace(/^cluster .*$/m, `cluster ${'A'.repeat(22)}`), bob),
    ],
    [
      'of an earlier state',
      'ceremony.answer_stale',
      () => attempt.submit('bob', now.replace(/^generation .*$/m, 'generation 1'), bob),
    ],
    [
      'to another question',
      'ceremony.answer_stale',
      () => attempt.submit('bob', now.replace(/^nonce .*$/m, 'nonce AAAAAAAAAAAAAAAAAAAAAA'), bob),
    ],
    ['without a last line', 'ceremony.answer_malformed', () => attempt.submit('bob', now, bob)],
    ['of no statement at all', 'ceremony.answer_malformed', () => attempt.submit('bob', 'x', bob)],
  ]
  for (const [step, code, action] of cases) await timeline.refuses(step, [code], action)
}

async function refuseShares(
  { timeline }: Stage,
  attempt: Attempt,
  bob: HolderKey,
  earlier: Earlier,
): Promise<void> {
  const now = await attempt.statement('bob')
  using random = Secret.random(32)
  await timeline.refuses('a share that nobody made', ['ceremony.share_wrong'], () =>
    attempt.submit('bob', `${now}${shareAnswer(random)}\n`, bob),
  )
  await timeline.refuses('the share of an earlier data key', ['ceremony.share_wrong'], () =>
    attempt.submit('bob', `${now}${earlier.share}\n`, bob),
  )
  await timeline.refuses('an approval where a share is needed', ['ceremony.share_needed'], () =>
    attempt.submit('bob', `${now}approve\n`, bob),
  )
}
