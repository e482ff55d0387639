import { readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import {
  announce,
  type Clock,
  codeOf,
  DurableRecord,
  ensureDirectory,
  fileFault,
  readIfPresent,
  renameDurable,
  shredDurable,
  systemClock,
} from '@holdfast/base'
import { type CurveName, curveNames } from '@holdfast/crypto'
import { z } from 'zod'
import { folderOf, prefixFolder } from './directory.ts'
import { makeKey, makeShreddable, parseKey, writeKey } from './key.ts'
import { changeState, lockDirectory, statePath } from './state.ts'

// Changes to a key directory. Every one is a list of steps decided beforehand, written to a journal
// and applied one by one; each step can be repeated. Whoever changes the directory next, or starts
// serving it, first finishes what a crash left. Plans create new keys before they hide old ones, so
// that at every moment the old or the new keys are advertised.

const use = z.enum(['signing', 'exchange'])
const curve = z.enum(curveNames)

const stepSchema = z.discriminatedUnion('do', [
  /** `kid` is filled in, durably, before the key is written. */
  z.strictObject({
    do: z.literal('create'),
    prefix: z.string(),
    use,
    crv: curve,
    kid: z.string().optional(),
  }),
  z.strictObject({ do: z.literal('hide'), prefix: z.string(), file: z.string(), kid: z.string() }),
  z.strictObject({
    do: z.literal('destroy'),
    prefix: z.string(),
    file: z.string(),
    kid: z.string(),
    use,
    crv: curve,
    reason: z.string(),
  }),
  z.strictObject({ do: z.literal('remove_prefix'), prefix: z.string() }),
])

/** One idempotent step; `file` is a path below the key directory. */
export type Step = z.infer<typeof stepSchema>

const journalSchema = z.strictObject({
  version: z.literal(1),
  what: z.string(),
  steps: z.array(stepSchema),
  /** The index of the step to apply next. */
  next: z.number().int().min(0),
})

type Journal = z.infer<typeof journalSchema>

/** What was done, with the thumbprints of the keys made. */
export interface ChangeResult {
  readonly what: string
  readonly steps: readonly Step[]
  readonly created: readonly { kid: string; use: 'signing' | 'exchange'; crv: CurveName }[]
}

function journalOf(directory: string): DurableRecord<Journal> {
  return new DurableRecord(statePath(directory, 'change.json'), (value) =>
    journalSchema.parse(value),
  )
}

/**
 * Decides and applies a change under the directory's lock, after finishing an interrupted one.
 * `decide` sees the directory as it is then.
 */
export async function change(
  directory: string,
  what: string,
  decide: () => Promise<readonly Step[]>,
  clock: Clock = systemClock,
): Promise<ChangeResult> {
  await using _ = await lockDirectory(directory, 'change', clock)
  await finish(directory, clock)
  const steps = [...(await decide())]
  if (steps.length === 0) return { what, steps, created: [] }
  const journal = journalOf(directory)
  await journal.write({ version: 1, what, steps, next: 0 })
  return finishedResult(await finish(directory, clock), what)
}

/** Finishes the change a crash interrupted, if any, and says what it was. */
export async function resumeChange(
  directory: string,
  clock: Clock = systemClock,
): Promise<ChangeResult | undefined> {
  if ((await journalOf(directory).read()) === undefined) return undefined
  await using _ = await lockDirectory(directory, 'change', clock)
  const journal = await finish(directory, clock)
  return journal === undefined ? undefined : finishedResult(journal, journal.what)
}

function finishedResult(journal: Journal | undefined, what: string): ChangeResult {
  const steps = journal?.steps ?? []
  const created = steps.flatMap((step) =>
    step.do === 'create' && step.kid !== undefined
      ? [{ kid: step.kid, use: step.use, crv: step.crv }]
      : [],
  )
  return { what, steps, created }
}

async function finish(directory: string, clock: Clock): Promise<Journal | undefined> {
  const record = journalOf(directory)
  let journal = await record.read()
  if (journal === undefined) return undefined
  while (journal.next < journal.steps.length) {
    const step = journal.steps[journal.next]
    if (step?.do === 'create') journal = await create(directory, journal, step)
    else if (step !== undefined) await apply(directory, step, clock.now())
    journal = { ...journal, next: journal.next + 1 }
    await record.write(journal)
  }
  await record.clear()
  return journal
}

async function create(
  directory: string,
  journal: Journal,
  step: Extract<Step, { do: 'create' }>,
): Promise<Journal> {
  const folder = folderOf(directory, step.prefix)
  if (step.prefix !== '') await ensureDirectory(join(directory, prefixFolder))
  await ensureDirectory(folder)
  if (step.kid !== undefined && (await isWritten(folder, step.kid))) return journal
  const key = makeKey(step.use, step.crv)
  const steps = journal.steps.map((other, index) =>
    index === journal.next ? { ...step, kid: key.kid } : other,
  )
  await journalOf(directory).write({ ...journal, steps })
  await writeKey(folder, key)
  return { ...journal, steps }
}

async function isWritten(folder: string, kid: string): Promise<boolean> {
  const bytes = await readIfPresent(join(folder, `${kid}.jwk`), 64 * 1024)
  return bytes !== undefined && parseKey(bytes.toString('utf8'), kid).kid === kid
}

async function apply(
  directory: string,
  step: Exclude<Step, { do: 'create' }>,
  now: number,
): Promise<void> {
  switch (step.do) {
    case 'hide':
      return hide(directory, step, now)
    case 'destroy':
      return destroy(directory, step, now)
    case 'remove_prefix':
      return removePrefix(directory, step.prefix)
    default:
      step satisfies never
  }
}

async function hide(
  directory: string,
  { prefix, file, kid }: Extract<Step, { do: 'hide' }>,
  now: number,
): Promise<void> {
  await changeState(directory, (state) => ({
    ...state,
    hidden: { [kid]: now, ...state.hidden },
  }))
  const from = join(directory, file)
  if ((await readIfPresent(from, 64 * 1024)) === undefined) return // hidden before the crash
  // Named after its thumbprint: `tangd-rotate-keys` would overwrite an older `.sig.jwk` here.
  await renameDurable(from, join(folderOf(directory, prefix), `.${kid}.jwk`))
}

/** Marked first, so that the key is never served again even if the file comes back. */
async function destroy(
  directory: string,
  { prefix, file, kid, use, crv, reason }: Extract<Step, { do: 'destroy' }>,
  now: number,
): Promise<void> {
  await changeState(directory, (state) => {
    const { [kid]: _, ...hidden } = state.hidden
    const destroyed = { [kid]: { at: now, reason, prefix, use, crv }, ...state.destroyed }
    return { ...state, hidden, destroyed }
  })
  await makeShreddable(join(directory, file))
  await shredDurable(join(directory, file))
  await shredRemains(folderOf(directory, prefix))
}

/** What a write that a crash cut short has left may be this very key. We hold the lock: nobody writes. */
async function shredRemains(folder: string): Promise<void> {
  const names = await readdir(folder).catch((cause: unknown): string[] => {
    if (codeOf(cause) === 'ENOENT') return []
    throw fileFault(folder, cause)
  })
  for (const name of names.filter((each) => each.startsWith('.tmp-'))) {
    await makeShreddable(join(folder, name))
    await shredDurable(join(folder, name))
  }
}

async function removePrefix(directory: string, prefix: string): Promise<void> {
  const folder = folderOf(directory, prefix)
  await shredRemains(folder)
  try {
    await rmdir(folder)
    announce('remove', folder)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}
