import type { Rehearsal } from '@holdfast/seal'
import type { ListedSlot, Standing, VaultListing, VaultRehearsal } from '@holdfast/vault'
import { rehearsalRows } from './describe.ts'
import { age, size } from './format.ts'
import { type Paint, table, toneOf } from './output.ts'

/** Whether the volume stands as it should, and what is missing. */
export function standingLines(
  { automatic, recovery, satisfied, problems }: Standing,
  paint: Paint,
) {
  const count = ({ ways, proven }: Standing['automatic']) => `${proven} of ${ways} proven`
  const verdict = satisfied ? paint('good', 'stands') : paint('bad', 'does not stand')
  return [
    `${verdict}: automatic ${count(automatic)}, recovery ${count(recovery)}`,
    ...problems.map((problem) => `${paint('warn', 'problem')}: ${problem}`),
  ]
}

/** A volume's ways in as a table. */
export async function listingText(
  listing: VaultListing,
  paint: Paint,
  now: number,
): Promise<string> {
  const rows = listing.slots.map((slot) => [
    String(slot.keyslot),
    slot.purpose,
    slot.owner,
    slot.label ?? slot.inspection?.label ?? '-',
    proofText(slot, paint, now),
    [slot.regenerate, slot.problem].filter((note) => note !== undefined).join('; '),
  ])
  const { space, unfinished, standing } = listing
  return [
    `${listing.device}  ${listing.uuid}`,
    await table(['SLOT', 'PURPOSE', 'OWNER', 'WAY IN', 'LAST PROOF', 'NOTE'], rows),
    `room for ${space.keyslots} keyslots and ${size(space.json)} of tokens`,
    ...standingLines(standing, paint),
    ...(unfinished === undefined
      ? []
      : [`${paint('warn', 'unfinished')}: ${unfinished}; run holdfast vault maintain`]),
  ].join('\n')
}

function proofText({ proof }: ListedSlot, paint: Paint, now: number): string {
  if (proof === undefined) return paint('warn', 'never tried')
  const last = proof.provenAt === undefined ? undefined : Date.parse(proof.provenAt)
  const when = last === undefined ? 'never' : `${age(last, now)} ago`
  return `${paint(toneOf(proof.state), proof.state.replace('_', ' '))} (${when})`
}

/** A rehearsal of every way in as a table. */
export async function rehearsalText(
  { ways, standing }: VaultRehearsal,
  paint: Paint,
): Promise<string> {
  const rows = ways.flatMap(({ keyslot, purpose, proof, rehearsal, problem }) => [
    [
      `keyslot ${keyslot}, ${purpose}`,
      paint(toneOf(proof.state), proof.state.replace('_', ' ')),
      '',
      problem ?? '',
    ],
    ...(rehearsal === undefined ? [] : pinRows(rehearsal, paint)),
  ])
  return [
    await table(['WAY IN', 'STATE', 'TIME', 'NOTE'], rows),
    ...standingLines(standing, paint),
  ].join('\n')
}

function pinRows(rehearsal: Rehearsal, paint: Paint): string[][] {
  return rehearsalRows(rehearsal, paint, 1)
}
