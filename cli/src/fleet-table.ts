import type { FleetRehearsal, FleetStatus, PinStatus, WayStatus } from '@holdfast/drills'
import { age, moment } from './format.ts'
import { type Paint, type Tone, table } from './output.ts'

const words: Record<WayStatus['state'], { word: string; tone: Tone }> = {
  proven: { word: 'ok', tone: 'good' },
  failed: { word: 'failing', tone: 'bad' },
  not_tried: { word: 'not tried', tone: 'warn' },
}

/** The live table: a row for each way in, its pins below. */
export async function fleetTable(
  rehearsal: FleetRehearsal,
  paint: Paint,
  now: number,
): Promise<string> {
  // What opens by itself first.
  const ways = rehearsal.ways.toSorted((a, b) => (a.way < b.way ? -1 : 1))
  const rows = ways.flatMap((way) => [
    wayRow(way, paint, now),
    ...rehearsal.pins
      .filter((pin) => pin.way === way.way && pin.keyslot === way.keyslot)
      .map((pin) => pinRow(pin, paint, now)),
  ])
  return await table(['PIN', 'STATE', 'LAST PROOF', 'AGE', 'MARGIN', 'NOTE'], rows)
}

function wayRow(way: WayStatus, paint: Paint, now: number): string[] {
  const { word, tone } = words[way.state]
  const slot = way.keyslot === undefined ? '' : `, keyslot ${way.keyslot}`
  return [
    paint('strong', `${way.way}: ${way.threshold} of ${way.of}${slot}`),
    paint(tone, word),
    moment(way.lastProof),
    age(way.lastProof, now),
    way.margin > 0 ? `+${way.margin}` : String(way.margin),
    '',
  ]
}

function pinRow(pin: PinStatus, paint: Paint, now: number): string[] {
  const { word, tone } = words[pin.state]
  const note = pin.problem ?? pin.fault?.message ?? ''
  return [
    `  ${pin.pin} ${pin.label}`,
    paint(tone, word),
    moment(pin.lastProof),
    age(pin.lastProof, now),
    '',
    note.length > 60 ? `${note.slice(0, 57)}...` : note,
  ]
}

/** One line for each thing that differs from before. */
export function changesOf(before: FleetRehearsal | undefined, after: FleetRehearsal): string[] {
  const line = (what: string, state: WayStatus['state'], note: string) =>
    `${moment(after.at)}  ${what}: ${words[state].word}${note}`
  const ways = after.ways.flatMap((way) => {
    const old = before?.ways.find((one) => one.way === way.way)
    if (old?.state === way.state && old.margin === way.margin) return []
    const margin = way.margin > 0 ? `+${way.margin}` : String(way.margin)
    return [line(`${way.way} (${way.threshold} of ${way.of})`, way.state, `, margin ${margin}`)]
  })
  const pins = after.pins.flatMap((pin) => {
    const old = before?.pins.find((one) => one.way === pin.way && one.label === pin.label)
    if (old?.state === pin.state) return []
    return [line(`  ${pin.pin} ${pin.label}`, pin.state, reason(pin))]
  })
  return [...ways, ...pins]
}

function reason({ fault, problem = fault?.message }: PinStatus): string {
  return problem === undefined ? '' : `: ${problem}`
}

/** One line about the servers and the volume's header. */
export function statusLine({ servers, volume }: FleetStatus, paint: Paint): string {
  const shown = servers.map(({ name, running, pid }) =>
    running ? `${name} (${pid})` : paint('bad', `${name} stopped`),
  )
  const header = volume.header === 'readable' ? 'readable' : paint('bad', 'unreadable')
  return `servers: ${shown.join(', ')}; header: ${header}`
}
