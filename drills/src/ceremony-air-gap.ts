import { parseJsonObject, type Secret } from '@holdfast/base'
import { readRequestFile } from '@holdfast/coordinator'
import { keyRoutes } from '@holdfast/protocol'
import { answer, answerFile, fetchRequest, handIn } from './ceremony-holder.ts'
import { begin, isNow, setCoordinator } from './ceremony-scene.ts'
import type { Drill } from './drill.ts'

export const holderAirGap: Drill = {
  name: 'holder-air-gap',
  title: 'A holder whose machine has no network',
  summary:
    'The request is carried to the offline machine, which believes it because the pinned coordinator signed it; the answer is carried back, and whoever carries it learns no share and cannot use it elsewhere.',
  run: async (stage) => {
    const { timeline } = stage
    const { coordinator, owner, keys } = await setCoordinator(stage)
    const [alice, bob] = keys
    if (alice === undefined || bob === undefined) throw new Error('there are three holders')
    await owner.call(keyRoutes.seal)
    const { id } = await begin(owner, 'recovery')
    await answer(owner, id, bob)
    const request = await fetchRequest(owner, id, alice.name)
    timeline.note('a request is carried to the offline machine', { characters: request.length })
    const pin = coordinator.identity
    const untrusted = ['ceremony.request_untrusted']
    await timeline.refuses('there, another coordinator is not believed', untrusted, () =>
      answerFile(alice, request, 'A'.repeat(43)),
    )
    const forged = request.replace('kind recovery', 'kind rollback')
    await timeline.refuses('nor is a request that was altered on its way', untrusted, () =>
      answerFile(alice, forged, pin),
    )
    const file = await answerFile(alice, request, pin)
    const { wrapped } = readRequestFile(request, pin)
    using share = await alice.unwrap(Buffer.from(wrapped, 'base64url'))
    timeline.proves('the answer that is carried back shows no share', !holds(file, share), {
      characters: file.length,
    })
    const misused = file.replace('"alice"', '"carol"')
    await timeline.refuses(
      'nor can it be handed in for another',
      ['ceremony.signature_invalid'],
      () => handIn(owner, id, misused),
    )
    const after = await handIn(owner, id, file)
    timeline.proves('handed in, it completes the recovery', after.state === 'done')
    await isNow(stage, 'the coordinator runs', coordinator, { state: 'running' })
  },
}

/** Whether a text holds a secret, as it is or inside what it encodes in base64url. */
function holds(text: string, secret: Secret): boolean {
  const bytes = secret.reveal()
  const inner = Buffer.from(String(parseJsonObject(text, 'the answer').statement), 'base64url')
  const forms = [bytes.toString('hex'), bytes.toString('base64url'), bytes.toString('base64')]
  return forms.some((form) => text.includes(form) || inner.includes(form)) || inner.includes(bytes)
}
