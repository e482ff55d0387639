import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, parseJsonObject, run } from '@holdfast/base'
import { holderStatusSchema, keyRoutes } from '@holdfast/protocol'
import { answer } from './ceremony-holder.ts'
import { opensslCommands } from './ceremony-openssl-commands.ts'
import {
  begin,
  isNow,
  manifestOf,
  publicKeys,
  type Scene,
  setCoordinator,
  setManifest,
} from './ceremony-scene.ts'
import type { Drill, Stage } from './drill.ts'

/** A desk with a shell, openssl, jq and curl; the guide's commands are typed there. */
class Desk {
  readonly directory: string
  readonly #holder: string
  #place = { url: '', identity: '' }

  constructor(directory: string, holder: string) {
    this.directory = directory
    this.#holder = holder
  }

  connect({ url, identity }: { url: string; identity: string }): void {
    this.#place = { url, identity }
  }

  async type(...blocks: readonly (keyof typeof opensslCommands)[]): Promise<void> {
    const script = blocks.map((name) => opensslCommands[name]).join('\n')
    const environment = {
      HOLDER: this.#holder,
      PIN: this.#place.identity,
      COORDINATOR: this.#place.url,
    }
    await run('bash', ['-euo', 'pipefail', '-c', script], { cwd: this.directory, environment })
  }

  async file(name: string): Promise<string> {
    return await readFile(join(this.directory, name), 'utf8')
  }

  /** The state of the ceremony that the reply tells of. */
  async replied(): Promise<unknown> {
    return parseJsonObject(await this.file('reply.json'), 'the reply').state
  }
}

/** The commands of the guide, and nothing else. */
export const holderOpenssl: Drill = {
  name: 'holder-openssl',
  title: 'A holder without our software',
  summary:
    'With openssl, curl and jq alone, by the commands of the guide, a holder makes a key, proves the share, recovers the coordinator, approves a manifest and proves the key again.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const place = join(directory, 'desk')
    await ensureDirectory(place)
    const desk = new Desk(place, 'olga')
    await desk.type('makeKey')
    const others = { olga: await desk.file('olga.pub') }
    const scene = await setCoordinator(stage, { holders: 2, threshold: 2, others })
    const { coordinator, owner, keys } = scene
    desk.connect(coordinator)
    const [, bob] = keys
    if (bob === undefined) throw new Error('there are two holders beside olga')
    await owner.call(keyRoutes.seal)
    const { id } = await begin(owner, 'recovery')
    await answer(owner, id, bob)
    await desk.type('connect', 'ask', 'unwrap', 'sign', 'handIn')
    const done = (await desk.replied()) === 'done'
    timeline.proves('by the commands of the guide the coordinator is recovered', done)
    await isNow(stage, 'it runs', coordinator, { state: 'running' })
    await approve(stage, scene, desk, others)
    await desk.type('connect', 'askForProof', 'checkProof', 'unwrap', 'sign', 'handInProof')
    const proof = holderStatusSchema.parse(JSON.parse(await desk.file('reply.json')))
    const { holders } = await coordinator.status()
    timeline.proves('the key is proven without touching a share', proof.provenAt !== undefined, {
      provenWithin90Days: holders?.provenWithin90Days ?? 0,
    })
    desk.connect({ url: coordinator.url, identity: 'A'.repeat(43) })
    await timeline.refuses('curl talks to the pinned identity only', ['base.program_failed'], () =>
      desk.type('connect', 'ask'),
    )
  },
}

async function approve(
  { timeline }: Stage,
  { owner, holders, keys }: Scene,
  desk: Desk,
  others: Record<string, string>,
): Promise<void> {
  const [alice] = keys
  if (alice === undefined) throw new Error('there are two holders beside olga')
  const manifest = manifestOf(2, { ...publicKeys(holders), ...others })
  const { id } = await setManifest(owner, { ...manifest, genesis: { peers: 7 } })
  await answer(owner, id, alice)
  await desk.type('connect', 'ask', 'approve', 'sign', 'handIn')
  timeline.proves('and a manifest is approved', (await desk.replied()) === 'done', { ceremony: id })
}
