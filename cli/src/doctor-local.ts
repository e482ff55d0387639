import type { NodePhase } from '@holdfast/protocol'
import {
  type Attempt,
  failed,
  type Judged,
  names,
  ok,
  type Rule,
  warning,
} from './doctor-findings.ts'
import { type FleetHere, startNode } from './fleet-here.ts'

// The layers of the machine that the doctor runs on: its directory, keys and boot state, its agent,
// its disk, and whom it can reach. Pure.

/** A place that the node needs, and whether it answers there. */
export interface Reach {
  /** A name or id for people. */
  who: string
  address: string
  tcp: Attempt<true>
}

export interface LocalSeen {
  /** The local fleet that it belongs to, if any, and its name there. */
  here?: { fleet: FleetHere; name: string }
  directory: string
  /** When it holds no node: the directories of agents that run on this machine. */
  elsewhere?: readonly string[]
  /** A copy each: its version, or what is wrong with it. */
  copies: readonly { name: string; version?: number; problem?: string }[]
  keys: 'present' | 'absent' | 'damaged' | 'elsewhere'
  /** True while an agent holds the directory. */
  running: boolean
  life?: {
    /** As its fleet calls it; undefined before it is enrolled. */
    name?: string
    phase: NodePhase
    task?: string
    held?: string
    lastErrors: readonly string[]
    genesis: boolean
    threshold: number
  }
  /** Undefined when no device was named and none is known. */
  volume?: Attempt<{
    device: string
    type: 'luks2' | 'luks1' | 'none'
    ways: readonly { keyslot: number; purpose: string; label: string }[]
  }>
  coordinators: readonly Reach[]
  guardians: readonly Reach[]
  /** Entries of the log of releases, all its parts; undefined when it was not read. */
  releases?: Attempt<number>
}

export const localRules: readonly Rule<LocalSeen>[] = [
  { layer: 'directory', judge: judgeDirectory },
  { layer: 'keys', judge: judgeKeys },
  { layer: 'boot state', judge: judgeCopies },
  { layer: 'agent', judge: judgeAgent },
  { layer: 'phase', judge: judgePhase },
  { layer: 'coordinator', judge: judgeCoordinators },
  { layer: 'disk', independent: true, judge: judgeVolume },
  { layer: 'guardians', judge: judgeGuardians },
  { layer: 'vault', judge: judgeVault },
  { layer: 'release log', independent: true, judge: judgeReleases },
]

const serve = 'holdfast agent serve --device DEVICE'

/** Typed elsewhere, by somebody who is logged in. */
function elsewhere(command: string): string {
  return `${command}   # where you are logged in`
}

function nameOf(life: LocalSeen['life']): string {
  return life?.name ?? 'NAME'
}

function judgeDirectory({ directory, keys, copies, elsewhere: others = [] }: LocalSeen): Judged {
  const empty =
    keys === 'absent' &&
    copies.every(({ version, problem }) => version === undefined && problem === undefined)
  if (!empty) return ok(directory)
  if (others.length > 0) {
    return failed(
      `${directory} holds no node, and ${others.length} agents run on this machine: which one?`,
      ...others.map((other) => `holdfast doctor node --directory ${other}`),
    )
  }
  return failed(
    `${directory} holds no node: the agent has never run here, or keeps its files elsewhere (--directory)`,
    serve,
  )
}

function judgeKeys({ keys, directory }: LocalSeen): Judged {
  if (keys === 'present') return ok('the keys of the node are there')
  if (keys === 'elsewhere') {
    return failed(
      'its keys are sealed by a TPM that is not here: this disk was copied or moved, or the TPM was cleared. Start it in its own machine; otherwise the node is removed and enrolled anew',
      elsewhere('holdfast node remove NAME --confirm NAME'),
    )
  }
  const text = keys === 'absent' ? 'is not there' : 'cannot be read'
  return failed(
    `${directory}/keys.json ${text}: a new identity would own no share at any guardian. Put it back from a copy; otherwise the holders open the vault, and the node is removed and enrolled anew`,
    elsewhere('holdfast node remove NAME --confirm NAME'),
  )
}

function judgeCopies({ copies, directory }: LocalSeen): Judged {
  const good = copies.filter(({ version }) => version !== undefined)
  const bad = copies.filter(({ version }) => version === undefined)
  const problems = bad.map(({ name, problem }) => `${name}: ${problem ?? 'is missing'}`).join('; ')
  const [newest] = good.toSorted((a, b) => (b.version ?? 0) - (a.version ?? 0))
  if (newest === undefined) {
    return failed(
      `no copy of the boot state can be used (${problems}); this is never taken for a new machine, and the vault is untouched. Put boot-state.a or boot-state.b back into ${directory}, or let the holders open the vault and enrol anew`,
    )
  }
  if (bad.length > 0)
    return warning(`${problems}; the agent repairs it from ${newest.name} when it starts`)
  return ok(`two copies, version ${newest.version}`)
}

function judgeAgent({ running, here }: LocalSeen): Judged {
  if (running) return ok('it runs')
  if (here !== undefined) {
    return failed('it has no power: its agent does not run', startNode(here.fleet, here.name))
  }
  return failed('no agent runs in this directory', 'systemctl status holdfast-agent', serve)
}

function judgePhase({ life }: LocalSeen): Judged | undefined {
  if (life === undefined) return undefined
  const { phase, task, held, lastErrors } = life
  const doing = task === undefined ? '' : `, at ${task}`
  const [last] = lastErrors
  const why = last === undefined ? '' : ` (${last})`
  switch (phase) {
    case 'open':
      return ok(`open${doing}`)
    case 'locked':
      return held === undefined ? ok(`locked${doing}`) : warning(`locked and held: ${held}`)
    case 'factory':
      return failed(
        'it is nobody’s: it shows its code on the console and waits on port 9999, which the firewall of the provider must let through',
        elsewhere('holdfast node enrol HOST --name NAME'),
      )
    case 'enrolling':
      return enrolling(task, why)
    case 'rescue':
      return failed(`it is in rescue and does not go on by itself${why}`)
    case 'left':
      return failed('it has left the fleet; its keys are destroyed')
    case 'wiped':
      return failed('its keys were destroyed')
    default:
      return phase satisfies never
  }
}

function enrolling(task: string | undefined, why: string): Judged {
  if (task === 'enrol:await_guardians') {
    return failed(
      `it has accepted and waits for guardians${why}: other nodes must be enrolled and connected first`,
      elsewhere('holdfast node list'),
    )
  }
  if (task === 'enrol:refused') {
    return failed(
      `its disk was refused${why}: nothing is formatted over what somebody may miss`,
      'blkid',
    )
  }
  return failed(
    `its enrolment goes on, at ${task ?? 'its beginning'}${why}`,
    'journalctl -u holdfast-agent -n 50',
  )
}

function judgeCoordinators({ coordinators }: LocalSeen): Judged | undefined {
  if (coordinators.length === 0) return undefined
  const away = coordinators.filter(({ tcp }) => !tcp.ok)
  if (away.length === 0) return ok(`${coordinators.length} of ${coordinators.length} answer`)
  const text = away.map(({ address, tcp }) => `${address} (${tcp.ok ? '' : tcp.code})`).join(', ')
  const next = away.map(({ address }) => `nc -vz -w 5 ${address.replace(/:(\d+)$/, ' $1')}`)
  // The vault opens without a coordinator; only commands and enrolment need it.
  return warning(`not reached: ${text}; unlocking does not need it`, ...next.slice(0, 2))
}

function judgeVolume({ volume, life }: LocalSeen): Judged | undefined {
  if (volume === undefined) return undefined
  if (!volume.ok)
    return failed(`the disk cannot be read (${volume.code}): ${volume.message}`, 'lsblk')
  const { device, type, ways } = volume.value
  const expected = life !== undefined && (life.phase === 'locked' || life.phase === 'open')
  if (type !== 'luks2') {
    if (!expected) return ok(`${device} carries ${type === 'none' ? 'no vault yet' : type}`)
    return failed(
      `${device} should be the vault and has no LUKS2 header: another disk, or the header is damaged`,
      `holdfast vault header list ${device}`,
      `holdfast vault header restore ${device} --holder-key NAME=FILE`,
    )
  }
  const count = (purpose: string) => ways.filter((way) => way.purpose === purpose).length
  const text = `${device}: ${count('automatic')} automatic ways, ${count('recovery')} through the holders`
  if (count('automatic') === 0) {
    return failed(
      `${text}: nothing opens it by itself`,
      elsewhere(`holdfast node unlock ${nameOf(life)} --key FILE --key FILE`),
    )
  }
  return ok(text)
}

function judgeGuardians({ guardians, life }: LocalSeen): Judged | undefined {
  if (life === undefined) return undefined
  if (guardians.length === 0) {
    if (!life.genesis) return ok('none: pins open it')
    const text = 'none yet: after a power cut its holders open it'
    return life.phase === 'locked'
      ? failed(
          text,
          elsewhere(`holdfast node unlock ${nameOf(life)} --genesis --key FILE --key FILE`),
        )
      : warning(text)
  }
  const away = guardians.filter(({ tcp }) => !tcp.ok)
  const up = guardians.length - away.length
  const text = `${up} of ${guardians.length} can be reached, ${life.threshold} are needed`
  const who = away.map(
    ({ who: id, address, tcp }) => `${id} at ${address} (${tcp.ok ? '' : tcp.code})`,
  )
  if (up < life.threshold) {
    return failed(
      `${text}; not reached: ${names(who, 4)}`,
      'wg show',
      elsewhere(`holdfast node unlock ${nameOf(life)} --key FILE --key FILE`),
    )
  }
  return away.length === 0 ? ok(text) : warning(`${text}; not reached: ${names(who, 4)}`)
}

/** Where the agent's own words are: in the journal, or with an agent that a terminal runs. */
function logOf(here: LocalSeen['here']): string {
  return here === undefined
    ? 'journalctl -u holdfast-agent -n 50'
    : `holdfast node logs ${here.name}`
}

function judgeVault({ life, here }: LocalSeen): Judged | undefined {
  if (life === undefined) return undefined
  if (life.phase !== 'locked') return ok(`the node is ${life.phase}`)
  const [last] = life.lastErrors
  return failed(
    `it is locked although enough guardians can be reached${last === undefined ? '' : ` (${last})`}: one may be frozen, held or of an older epoch`,
    logOf(here),
    elsewhere(`holdfast doctor node ${nameOf(life)}`),
  )
}

/** What the node has answered others is evidence; nothing that it does depends on it. */
function judgeReleases({ releases, directory }: LocalSeen): Judged | undefined {
  if (releases === undefined) return undefined
  if (releases.ok) return ok(`${releases.value} entries hang together`)
  const { code, message } = releases
  if (code !== 'agent.log_damaged') return warning(message, `ls -l ${directory}`)
  return warning(
    `${message}: somebody has changed it, or the disk has. Copy the log, and find out who could write there`,
    `cp -a ${directory}/releases.log* DIR`,
    elsewhere('holdfast audit list'),
  )
}
