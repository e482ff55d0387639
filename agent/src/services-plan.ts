import type { ServiceStatus } from '@holdfast/protocol/commands'

// What has to be done so that the units of this machine are the services of the manifest. Pure; every
// step may be done again. Unit files exist only while the vault is mounted: there is nothing that
// could be started before it, and after a restart of the agent the files say what it had begun.

/** A unit as the machine has it. */
export interface PresentUnit {
  /** Its file. */
  text: string
  /** systemd's ActiveState, such as `active`, `inactive`, `failed`. */
  active: string
  /** True when it has been started with this text and not been stopped since. */
  begun: boolean
}

export type ServiceStep =
  | { kind: 'stop'; units: readonly string[] }
  | { kind: 'remove'; unit: string }
  | { kind: 'write'; unit: string; text: string }
  /** Makes systemd read the files, and forget how removed units failed. */
  | { kind: 'reload'; gone: readonly string[] }
  | { kind: 'start'; units: readonly string[] }

/** The steps from what is present to what is wanted, by unit name. */
export function planServices(
  present: ReadonlyMap<string, PresentUnit>,
  wanted: ReadonlyMap<string, string>,
): ServiceStep[] {
  const gone = [...present.keys()].filter((unit) => !wanted.has(unit))
  const changed = [...wanted].filter(([unit, text]) => present.get(unit)?.text !== text)
  const replaced = changed.map(([unit]) => unit).filter((unit) => present.has(unit))
  const stopped = [...gone, ...replaced]
  const fresh = new Set(changed.map(([unit]) => unit))
  const started = [...wanted.keys()].filter((unit) => {
    const known = present.get(unit)
    // One that was begun and has ended is left as it is: Restart= has decided.
    return fresh.has(unit) || (known?.begun === false && known.active === 'inactive')
  })
  const steps: ServiceStep[] = []
  if (stopped.length > 0) steps.push({ kind: 'stop', units: stopped })
  steps.push(...gone.map((unit) => ({ kind: 'remove', unit }) as const))
  steps.push(...changed.map(([unit, text]) => ({ kind: 'write', unit, text }) as const))
  // Also before a start: a stop of the agent may have come between the file and the reload.
  if (stopped.length > 0 || started.length > 0) steps.push({ kind: 'reload', gone })
  if (started.length > 0) steps.push({ kind: 'start', units: started })
  return steps
}

/** What `systemctl show` says of a unit: properties by name. */
export type UnitProperties = Readonly<Record<string, string>>

/** Properties that are asked for. */
export const unitProperties = [
  'Id',
  'LoadState',
  'ActiveState',
  'SubState',
  'Result',
  'NRestarts',
  'ExecMainStatus',
] as const

/** Reads the output of `systemctl show` for several units, by Id. */
export function parseShow(output: string): Map<string, UnitProperties> {
  const units = new Map<string, UnitProperties>()
  for (const block of output.split(/\n\s*\n/)) {
    const pairs = block
      .split('\n')
      .filter((line) => line.includes('='))
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const)
    const properties = Object.fromEntries(pairs)
    if (properties.Id !== undefined) units.set(properties.Id, properties)
  }
  return units
}

/** How a service stands, from its unit's properties. */
export function stateOf(properties: UnitProperties): Pick<ServiceStatus, 'state' | 'detail'> {
  const { ActiveState = '', SubState = '', Result = '', NRestarts = '0' } = properties
  const { ExecMainStatus = '' } = properties
  const restarts = NRestarts === '0' ? '' : `, restarted ${NRestarts} times`
  const ended = `${Result}, status ${ExecMainStatus}${restarts}`
  if (ActiveState === 'active' || ActiveState === 'reloading')
    return { state: 'running', ...(restarts === '' ? {} : { detail: restarts.slice(2) }) }
  if (ActiveState === 'failed') return { state: 'failed', detail: ended }
  if (SubState === 'auto-restart')
    return { state: 'failed', detail: `${ended}; it will be restarted` }
  // In the middle of the next attempt, of which nothing is known yet: what keeps failing does not flap.
  if (ActiveState === 'activating' && restarts !== '')
    return { state: 'failed', detail: `${restarts.slice(2)}; starting again` }
  if (ActiveState === 'activating') return { state: 'stopped', detail: 'starting' }
  return { state: 'stopped', ...(Result === 'success' ? {} : { detail: ended }) }
}
