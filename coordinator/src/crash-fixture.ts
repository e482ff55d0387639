import { createPrivateKey } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createPins } from '@holdfast/seal'
import { listCeremonies } from './ceremonies.ts'
import { Coordinator, type CoordinatorOptions } from './coordinator.ts'
import { answerAll, depsOf, manifestOf, type Person } from './coordinator-fixture.ts'
import { openDismissal } from './dismissal.ts'
import { filePin } from './file-pin.ts'
import { proposeManifest } from './manifests.ts'
import { openRecovery } from './recovery.ts'
import { resume } from './resume.ts'
import { rotateDataKey } from './way-changes.ts'

// What the crash tests kill at every effect. Each scenario goes on from wherever an earlier attempt
// was stopped, as a person would: looks at the state first, then does what is left. As a program:
//
//   node crash-fixture.ts SCENARIO DIRECTORY PEOPLE.json N
//
// ends itself with SIGKILL at the N-th durable write, or moment just before or after a commit.

export type Scenario = (options: CoordinatorOptions, people: readonly Person[]) => Promise<void>

export function optionsIn(directory: string): CoordinatorOptions {
  return {
    directory,
    store: { engine: 'sqlite', path: join(directory, 'state.db') },
    pins: createPins({ extra: [filePin()] }),
  }
}

async function started(options: CoordinatorOptions): Promise<Coordinator> {
  const coordinator = await Coordinator.start(options)
  await resume(coordinator, depsOf(coordinator))
  return coordinator
}

export const scenarios = {
  claim: async (options) => {
    await using coordinator = await started(options)
    if (coordinator.state !== 'uninitialised') return
    const token = await readFile(join(options.directory, 'claim-token'), 'utf8')
    await coordinator.claim(token, 'fleet', async () => undefined)
  },
  /** The first manifest, and with it the holders in their two phases: 2 of 3. */
  manifest: async (options, people) => {
    await using coordinator = await started(options)
    await setHolders(coordinator, people, manifestOf(people, 2))
  },
  /** Another circle, 1 of 2, approved by the old one. */
  holders: async (options, people) => {
    await using coordinator = await started(options)
    await setHolders(coordinator, people, manifestOf(people.slice(1), 1))
  },
  rotate: async (options) => {
    await using coordinator = await started(options)
    if (coordinator.header?.generation === 2)
      await rotateDataKey(coordinator, depsOf(coordinator), 'test')
  },
  recovery: async (options, people) => {
    await using coordinator = await started(options)
    if (coordinator.state === 'running') return
    const ceremony = await openRecovery(coordinator, depsOf(coordinator), 'test')
    await answerRest(coordinator, ceremony, people)
  },
  dismissal: async (options, people) => {
    await using coordinator = await started(options)
    if (coordinator.state === 'uninitialised') return
    const ceremony = await openDismissal(coordinator, depsOf(coordinator), 'test')
    await answerRest(coordinator, ceremony, people)
  },
} as const satisfies Record<string, Scenario>

async function setHolders(
  coordinator: Coordinator,
  people: readonly Person[],
  wanted: Record<string, unknown>,
): Promise<void> {
  const deps = depsOf(coordinator)
  // An approval, then the proofs of the new holders, then nothing more to do.
  for (let step = 0; step < 3; step += 1) {
    const [open] = await listCeremonies(deps, ['open'])
    const ceremony = open ?? (await proposeManifest(coordinator, deps, wanted, 'test')).ceremony
    if (ceremony === undefined) return
    await answerRest(coordinator, ceremony, people)
  }
}

async function answerRest(
  coordinator: Coordinator,
  ceremony: Awaited<ReturnType<typeof openRecovery>>,
  people: readonly Person[],
): Promise<void> {
  const able = ceremony.holders.map(({ name }) => name)
  const answered = ceremony.answered.map(({ holder }) => holder)
  const left = people.filter(({ name }) => able.includes(name) && !answered.includes(name))
  await answerAll(coordinator, ceremony, left.slice(0, ceremony.threshold - answered.length))
}

async function main(name: string, directory: string, peopleFile: string, at: number) {
  let effects = 0
  subscribe('holdfast:effect', () => {
    effects += 1
    if (effects === at) process.kill(process.pid, 'SIGKILL')
  })
  const stored: { name: string; pem: string; key: string }[] = JSON.parse(
    await readFile(peopleFile, 'utf8'),
  )
  const people = stored.map(({ name, pem, key }) => ({
    name,
    pem,
    privateKey: createPrivateKey(key),
  }))
  const scenario = Object.entries(scenarios).find(([each]) => each === name)?.[1]
  if (scenario === undefined) throw new Error(`there is no scenario ${name}`)
  await scenario(optionsIn(directory), people)
  process.stdout.write(`${effects}\n`)
}

if (import.meta.main) {
  const [, , name = '', directory = '', peopleFile = '', at = '0'] = process.argv
  await main(name, directory, peopleFile, Number(at))
}
