import { randomBytes } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, isFault, type JsonObject, systemClock } from '@holdfast/base'
import type { ApiClient } from '@holdfast/link/api-client'
import { ceremonyRoutes, keyRoutes } from '@holdfast/protocol'
import { answer, type HolderKey } from './ceremony-holder.ts'
import { begin, isNow, type Scene, setCoordinator } from './ceremony-scene.ts'
import type { CoordinatorProcess } from './coordinator-process.ts'
import type { Drill, Stage } from './drill.ts'

const uploads = 1000
/** Strangers: one noisy address, and many that each send little. */
const crowd = 50
/** Bytes by which what was signed by no holder may make the store grow: none of it is written. */
const mostGrowth = 4096

/** Anybody can reach a sealed coordinator; nobody but its holders may have an effect. */
export const junkAnswers: Drill = {
  name: 'junk-answers',
  title: 'A sealed coordinator under 1000 junk answers',
  summary:
    'Half come from one address and are soon limited, half from fifty that stay below every limit. Not a byte of it is stored, the answer that was given before stays, holders answer in the middle of it, and a stolen holder key is listened to twenty times.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const scene = await setCoordinator(stage, { holders: 5, threshold: 3 })
    const { coordinator, owner, keys } = scene
    await owner.call(keyRoutes.seal)
    const [alice, bob, carol, dave] = keys
    if (!alice || !bob || !carol || !dave) throw new Error('there are five holders')
    const people = ['127.0.2.1', '127.0.2.2'].map((from) =>
      cleanup.use(coordinator.client({ from })),
    )
    const [desk, other] = people
    if (desk === undefined || other === undefined) throw new Error('there are two desks')
    const { id } = await begin(desk, 'recovery')
    await answer(desk, id, alice)
    const before = await measure(coordinator)
    const codes = await flood(stage, coordinator, id)
    const after = await measure(coordinator)
    const growth = after.bytes - before.bytes
    timeline.note(`${uploads} junk answers were sent`, {
      codes,
      seconds: (after.at - before.at) / 1000,
      processorSeconds: Math.round((after.processor - before.processor) * 100) / 100,
      storeGrowthBytes: growth,
    })
    timeline.proves('none was accepted, and the noisy address was limited', isLimited(codes), codes)
    timeline.proves('they made the store no larger', growth <= mostGrowth, { growth })
    const held = await desk.call(ceremonyRoutes.get, { params: { id } })
    const one = held.answered.length === 1 && held.rejected.length === 0
    timeline.proves('the answer from before stands, and nothing else', one, {
      answered: held.answered.map(({ holder }) => holder),
    })
    await stolenKey(stage, scene, other, { id, thief: dave })
    await throughTheNoise(stage, scene, [desk, other], id, [bob, carol])
  },
}

interface Measured {
  at: number
  bytes: number
  /** Seconds that the process has used a processor. */
  processor: number
}

async function measure({ directory, pid }: CoordinatorProcess): Promise<Measured> {
  const names = ['state.db', 'state.db-wal']
  const sizes = await Promise.all(names.map((name) => sizeOf(join(directory, name))))
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '').split(' ')
  // utime and stime in clock ticks, 100 a second (proc(5), fields 14 and 15).
  const processor = (Number(fields[11]) + Number(fields[12])) / 100
  return { at: systemClock.now(), bytes: sizes.reduce((sum, size) => sum + size, 0), processor }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 0
    throw error
  }
}

type Codes = Record<string, number> & JsonObject

/** All of it, at most twenty at a time; counts the codes that came back. */
async function flood(
  { signal }: Stage,
  coordinator: CoordinatorProcess,
  id: string,
): Promise<Codes> {
  using strangers = new DisposableStack()
  const noisy = strangers.use(coordinator.client({ from: '127.0.3.1' }))
  const many = Array.from({ length: crowd }, (_, index) =>
    strangers.use(coordinator.client({ from: `127.0.4.${index + 1}` })),
  )
  const codes: Codes = {}
  const numbers = Array.from({ length: uploads }, (_, index) => index).values()
  const lane = async () => {
    for (const number of numbers) {
      signal.throwIfAborted()
      const client = number % 2 === 0 ? noisy : many[(number >> 1) % crowd]
      const code = await junk(client ?? noisy, id, number)
      codes[code] = (codes[code] ?? 0) + 1
    }
  }
  await Promise.all(Array.from({ length: 20 }, lane))
  return codes
}

/** One junk answer; says how it was refused. */
async function junk(client: ApiClient, id: string, number: number): Promise<string> {
  const bytes = (length: number) => randomBytes(length).toString('base64url')
  const kinds = [
    { holder: 'alice', statement: bytes(500), signature: bytes(384) },
    { holder: 'mallory', statement: bytes(500), signature: bytes(384) },
    { holder: 'bob', statement: bytes(40_000), signature: bytes(384) },
    { holder: 'carol', statement: bytes(10), signature: '' },
  ]
  const body = kinds[(number >> 1) % kinds.length] ?? { holder: '', statement: '', signature: '' }
  try {
    await client.call(ceremonyRoutes.answer, { params: { id }, body })
    return 'accepted'
  } catch (error) {
    if (isFault(error)) return error.code
    throw error
  }
}

function isLimited(codes: Codes): boolean {
  return codes.accepted === undefined && (codes['user.too_many_requests'] ?? 0) > 0
}

/** Who has a holder's key can sign wrong answers; they are counted, and end. */
async function stolenKey(
  { timeline }: Stage,
  { coordinator }: Scene,
  client: ApiClient,
  { id, thief }: { id: string; thief: HolderKey },
): Promise<void> {
  const params = { id, holder: thief.name }
  const { statement } = await client.call(ceremonyRoutes.request, { params })
  const text = Buffer.from(`${statement}share ${'0'.repeat(64)}\n`)
  const signature = (await thief.sign(text)).toString('base64url')
  const body = { holder: thief.name, statement: text.toString('base64url'), signature }
  const before = await measure(coordinator)
  const codes: string[] = []
  for (let tried = 0; tried < 25; tried += 1) {
    const refusal = client.call(ceremonyRoutes.answer, { params: { id }, body })
    codes.push(
      await refusal.then(
        () => 'accepted',
        (error) => (isFault(error) ? error.code : 'internal'),
      ),
    )
  }
  const wrong = codes.filter((code) => code === 'ceremony.share_wrong').length
  const unheard = codes.filter((code) => code === 'ceremony.too_many_attempts').length
  const growth = (await measure(coordinator)).bytes - before.bytes
  timeline.proves('a stolen key is listened to twenty times', wrong === 20 && unheard === 5, {
    ...{ wrong, unheard, storeGrowthBytes: growth },
  })
}

/** Two holders answer while the flood goes on. */
async function throughTheNoise(
  stage: Stage,
  { coordinator }: Scene,
  [desk, other]: readonly [ApiClient, ApiClient],
  id: string,
  [bob, carol]: readonly [HolderKey, HolderKey],
): Promise<void> {
  const noise = flood(stage, coordinator, id)
  await answer(desk, id, bob)
  const last = await answer(other, id, carol)
  stage.timeline.proves('in the middle of it two holders get through', last.state === 'done')
  await noise
  await isNow(stage, 'the coordinator runs', coordinator, { state: 'running' })
}
