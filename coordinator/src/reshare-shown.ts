import type { Manifest, nodeSchema, reshareSchema } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Liveness } from './nodes.ts'
import { isBelowMargin } from './placement.ts'
import { readViews, reshareOf } from './reshare-views.ts'
import type { Database, Work } from './store.ts'

// Re-shares as people see them.

export type ShownReshare = z.infer<typeof reshareSchema>

/** What of each ward's last re-share is worth showing: it is under way, or nothing came after its failure. */
export async function shownReshares(
  database: Database | Work,
  ward?: string,
): Promise<Map<string, Pick<z.infer<typeof nodeSchema>, 'reshare'>>> {
  const shown = await lastReshares(database, ward)
  return new Map(shown.map(({ ward: node, reshare }) => [node, { reshare }]))
}

/** The same as a list, with the guardians. */
export async function listReshares(
  database: Database | Work,
): Promise<(ShownReshare & { node: string; guardians: string[] })[]> {
  const shown = await lastReshares(database)
  return shown.map(({ ward: node, guardians, reshare }) => ({ node, guardians, ...reshare }))
}

async function lastReshares(database: Database | Work, ward?: string) {
  let query = database
    .selectFrom('reshares')
    .leftJoin('nodes', 'nodes.node', 'reshares.ward')
    .selectAll('reshares')
    .where('reshares.state', '!=', 'done')
    .where(({ eb, or, ref }) =>
      or([eb('reshares.state', '!=', 'failed'), eb('reshares.epoch', '>', ref('nodes.epoch'))]),
    )
    .orderBy('reshares.created')
    .orderBy('reshares.id')
  if (ward !== undefined) query = query.where('reshares.ward', '=', ward)
  const rows = await query.execute()
  // Of several of one ward the last one is shown, and one under way rather than a failed one.
  const last = new Map<string, (typeof rows)[number]>()
  for (const row of rows)
    if (row.state !== 'failed' || (last.get(row.ward)?.state ?? 'failed') === 'failed')
      last.set(row.ward, row)
  return [...last.values()].map((row) => {
    const { state, cause, epoch, since, message, guardians } = reshareOf(row)
    const shownState = state === 'done' ? 'retiring' : state // `done` was left out above
    const reshare: ShownReshare = { state: shownState, cause, epoch, since }
    if (message !== undefined) reshare.reason = message
    return { ward: row.ward, guardians: [...guardians], reshare }
  })
}

/** Nodes with fewer living guardians than threshold plus margin. */
export async function belowMargin(
  database: Database | Work,
  manifest: Manifest,
  liveness: Liveness,
): Promise<string[]> {
  const views = await readViews(database, { ...liveness, pins: false })
  const { margin } = manifest.guardians
  const below = [...views.values()].filter((view) => isBelowMargin(view, views, { margin }))
  return below.map(({ node }) => node)
}
