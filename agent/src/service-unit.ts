import { createHash } from 'node:crypto'
import type { ServiceDefinition } from '@holdfast/protocol/manifest'

// A service of the manifest as a systemd unit (systemd.service(5), systemd.exec(5)). Pure. What people
// wrote into the manifest becomes values of a file in which a line break begins a new setting, `%`
// begins a specifier, and quotes, backslashes and semicolons have meanings (systemd.syntax(7)); so
// every text is escaped or refused here, and nowhere else.

/** Where things are on the node. */
export interface UnitPlace {
  /**
   * `/var/lib/private/NAME`, on which the services' directory of the vault is mounted. systemd keeps
   * the state of services with dynamic users below `/var/lib/private`, and gives each its own there.
   */
  state: string
  /** Directories that no service may look into: the agent's. */
  hidden: readonly string[]
  /** Files that services are given, by service: its token. */
  credentials?: Readonly<Record<string, string>>
}

/** Below `/var/lib`, and below `/var/lib/private`. */
const stateName = 'holdfast-services'
export const statePath = `/var/lib/private/${stateName}`

const unitPrefix = 'holdfast-service-'
/** What a service may call when the manifest does not say; violations are only logged. */
const usualCalls: NonNullable<ServiceDefinition['syscalls']> = {
  groups: ['@system-service'],
  mode: 'audit',
}
const plainPath = /^\/[A-Za-z0-9._/+-]*$/

/** The unit file of a service of the manifest. */
export function unitName(service: string): string {
  return `${unitPrefix}${service}.service`
}

/** The service of a unit file, or undefined when it is somebody else's. */
export function serviceOfUnit(file: string): string | undefined {
  const isOurs = file.startsWith(unitPrefix) && file.endsWith('.service')
  return isOurs ? file.slice(unitPrefix.length, -'.service'.length) : undefined
}

/** Why no unit can be made of a service, in words for people; undefined when one can. */
export function unitProblem({ command }: ServiceDefinition): string | undefined {
  const [program = ''] = command
  if (!plainPath.test(program))
    return 'its program must be an absolute path of letters, digits and . _ / + -'
  if (command.some((word) => word.includes('\0') || !word.isWellFormed()))
    return 'an argument holds a zero byte or broken Unicode, which no program can be given'
  return undefined
}

/**
 * The unit's text. The same service always gives the same text, so a change is seen by comparing.
 * @throws RangeError for a service that has a `unitProblem`
 */
export function unitText(name: string, service: ServiceDefinition, place: UnitPlace): string {
  const problem = unitProblem(service)
  if (problem !== undefined) throw new RangeError(`${name}: ${problem}`)
  const sections = {
    Unit: unitSection(name, service, place),
    Service: serviceSection(name, service, place),
  }
  return Object.entries(sections)
    .map(([section, lines]) => `[${section}]\n${lines.map((line) => `${line}\n`).join('')}`)
    .join('\n')
}

/** There is no [Install] section: a unit is started by the agent after the vault has opened, or never. */
function unitSection(name: string, { description }: ServiceDefinition, { state }: UnitPlace) {
  return [
    `Description=${inValue(`${description} (Holdfast service ${name})`.trim())}`,
    `RequiresMountsFor=${quoted(state)}`,
    `AssertPathIsMountPoint=${inValue(state)}`,
    'StartLimitIntervalSec=0',
  ]
}

function serviceSection(name: string, service: ServiceDefinition, place: UnitPlace): string[] {
  const { command, directory, restart, memoryMegabytes } = service
  const [program = '', ...rest] = command
  const credential = place.credentials?.[name]
  return [
    'Type=exec',
    // The colon keeps `$` as it is (systemd.service(5), "COMMAND LINES").
    `ExecStart=${[`:${program}`, ...rest.map(quoted)].join(' ')}`,
    `Restart=${restart}`,
    'RestartSec=5',
    'TimeoutStopSec=30',
    'DynamicUser=yes',
    `User=${userName(directory)}`,
    `StateDirectory=${stateName}/${directory}`,
    'StateDirectoryMode=0700',
    `WorkingDirectory=/var/lib/${stateName}/${directory}`,
    ...(memoryMegabytes === undefined ? [] : [`MemoryMax=${memoryMegabytes}M`, 'MemorySwapMax=0']),
    'TasksMax=512',
    ...(credential === undefined ? [] : [`LoadCredential=token:${inValue(credential)}`]),
    ...place.hidden.map((path) => `InaccessiblePaths=${quoted(`-${path}`)}`),
    ...systemCalls(service),
    ...sandbox,
  ]
}

/** Audit lets a call through and logs it; enforce kills the service at it, which is logged as well. */
function systemCalls({ syscalls = usualCalls }: ServiceDefinition): string[] {
  const groups = syscalls.groups.join(' ')
  if (groups === '') return []
  return syscalls.mode === 'audit' ? [`SystemCallLog=~${groups}`] : [`SystemCallFilter=${groups}`]
}

/** Own mount and UTS namespaces, nothing writable but the state directory, no privileges. */
const sandbox = [
  'ProtectSystem=strict',
  'ProtectHome=yes',
  'PrivateTmp=yes',
  'PrivateDevices=yes',
  'PrivateMounts=yes',
  'ProtectHostname=yes',
  'ProtectClock=yes',
  'ProtectKernelTunables=yes',
  'ProtectKernelModules=yes',
  'ProtectKernelLogs=yes',
  'ProtectControlGroups=yes',
  'ProtectProc=invisible',
  'NoNewPrivileges=yes',
  'CapabilityBoundingSet=',
  'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6',
  'RestrictNamespaces=yes',
  'RestrictRealtime=yes',
  'RestrictSUIDSGID=yes',
  'LockPersonality=yes',
  'RemoveIPC=yes',
  'KeyringMode=private',
  'SystemCallArchitectures=native',
  'UMask=0077',
]

/** One dynamic user for each directory: services that share one share its owner. */
function userName(directory: string): string {
  return `hf-${createHash('sha256').update(directory).digest('hex').slice(0, 16)}`
}

/** A value on one line. The text around it ends the line, so a backslash cannot join two. */
function inValue(text: string): string {
  return [...text]
    .map((character) => (isControl(character) ? ' ' : character === '%' ? '%%' : character))
    .join('')
    .replaceAll('\\', '/')
}

/** One word of a command line, whatever is in it. */
function quoted(word: string): string {
  const inside = [...word].map((character) => {
    if (character === '"' || character === '\\') return `\\${character}`
    if (character === '%') return '%%'
    if (isControl(character)) return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
    return character
  })
  return `"${inside.join('')}"`
}

function isControl(character: string): boolean {
  const code = character.codePointAt(0) ?? 0
  return code < 0x20 || code === 0x7f
}
