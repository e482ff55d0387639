import { writeDurable } from '@holdfast/base'
import { z } from 'zod'
import type { Input } from './input.ts'
import { type Paint, painter } from './output.ts'

// Plans and receipts of what destroys keys, as a node's vault writes them; shown as far as they are
// understood, and kept whole.

const copySchema = z.looseObject({ what: z.string(), why: z.string() })
const planSchema = z.looseObject({
  level: z.number().optional(),
  destroys: z.array(z.string()).default([]),
  survives: z.array(z.string()).default([]),
  unreachable: z.array(copySchema).default([]),
  wayBack: z.string().optional(),
  notes: z.array(z.string()).default([]),
})
const receiptSchema = z.looseObject({
  level: z.number().optional(),
  steps: z.array(z.looseObject({ step: z.unknown(), result: z.string() })).default([]),
  unreachable: z.array(copySchema).default([]),
})

type Members = Readonly<Record<string, unknown>>

/** What a wipe would do, from a dry run. */
export function nodePlanText(plan: Members, name: string, paint: Paint = painter()): string {
  const parsed = planSchema.safeParse(plan)
  if (!parsed.success) return JSON.stringify(plan)
  const { level, destroys, survives, unreachable, wayBack, notes } = parsed.data
  const section = (title: string, found: readonly string[]) =>
    found.length === 0 ? [] : [`${title}:`, ...found.map((line) => `  ${line}`)]
  return [
    `panic ${level ?? ''} of ${name}: nothing has been done`,
    ...section('destroys', destroys),
    ...section('survives', survives),
    ...section(
      'cannot reach',
      unreachable.map(({ what, why }) => `${what} (${why})`),
    ),
    ...section('note', notes),
    `way back: ${wayBack ?? paint('bad', 'none: nothing brings this vault back')}`,
  ].join('\n')
}

/**
 * What a wipe has done. `failed` counts the steps that did not work. A node's receipt holds its vault's
 * beside what was done to the node itself.
 */
export function receiptText(receipt: Members): { text: string; failed: number } {
  const parsed = receiptSchema.safeParse(receipt.vault ?? receipt)
  if (!parsed.success) return { text: JSON.stringify(receipt), failed: 0 }
  const { steps, unreachable } = parsed.data
  const failed = steps.filter(({ result }) => result === 'failed')
  const text = [
    ...(steps.length === 0
      ? []
      : [`${steps.length - failed.length} of ${steps.length} steps done`]),
    ...failed.map(({ step }) => `failed: ${JSON.stringify(step)}`),
    ...unreachable.map(({ what, why }) => `cannot reach: ${what} (${why})`),
  ].join('\n')
  return { text, failed: failed.length }
}

/** Writes the receipt to --out, whole. */
export async function keepReceipt(receipt: Members, input: Input): Promise<string | undefined> {
  const file = input.text('out')
  if (file === undefined) return undefined
  await writeDurable(file, `${JSON.stringify(receipt, null, 2)}\n`, { mode: 0o600 })
  return file
}
