import { z } from 'zod'
import { nameSchema, publicKeySchema } from './names.ts'

// The manifest: what the fleet has agreed on. Unknown members are refused everywhere, because a
// misspelt "holders" must not become a fleet without recovery.

/** The fixed roles. There are no others and no permissions besides these. */
export const roles = [
  'admin',
  'operator',
  'releaser',
  'secret-writer',
  'auditor',
  'holder',
] as const
export const roleSchema = z.enum(roles)
export type Role = z.infer<typeof roleSchema>

const minutes = (most: number) => z.number().int().min(0).max(most)

/** k of n named people. No recovery is possible only when it is stated in these very words. */
const holdersSchema = z.union([
  z.strictObject({
    threshold: z.number().int().min(1).max(32),
    keys: z.record(nameSchema, publicKeySchema).refine((keys) => Object.keys(keys).length <= 32),
  }),
  z.strictObject({ none: z.literal('there will be no recovery') }),
])

const userSchema = z.strictObject({ roles: z.array(roleSchema).min(1).max(roles.length) })

const releaseKeysSchema = z.strictObject({
  threshold: z.number().int().min(1).max(16),
  keys: z.record(nameSchema, publicKeySchema),
})

/** What may stand in a vault template beside the guardians: clevis-style pin configurations. */
const vaultSchema = z.strictObject({
  /** `peers`: guardians alone; `peers-and-pins`: both must open; `pins`: no guardians. */
  unlock: z.enum(['peers', 'peers-and-pins', 'pins']).default('peers'),
  pins: z
    .strictObject({ t: z.number().int().min(1), pins: z.record(z.string(), z.unknown()) })
    .optional(),
})

/** Who keeps shares for whom, and under which rules they are released. */
const guardiansSchema = z.strictObject({
  /** Guardians of each ward. */
  count: z.number().int().min(2).max(63).default(5),
  /** Needed to open; default a majority of `count`, and never below 3 of 5. */
  threshold: z.number().int().min(2).max(63).optional(),
  /** More guardians than the threshold that must stay before a node may leave or reboot. */
  margin: z.number().int().min(0).max(16).default(1),
  /** The label by which guardians are spread, such as `rack` or `region`. */
  spread: nameSchema.default('domain'),
  /** A release is held this long, and announced, before it is answered. */
  holdMinutes: minutes(1440).default(0),
  /** Releases to one ward in an hour. */
  releasesPerHour: z.number().int().min(1).max(10_000).default(60),
  /** Source address ranges that wards may ask from; none means any. */
  sources: z.array(z.string().max(64)).max(64).default([]),
  /** A guardian that was silent for so long is lost: its wards move to others. */
  lostMinutes: z.number().int().min(1).max(525_600).default(60),
  /** Shares are made anew after so many days. */
  refreshDays: z.number().int().min(1).max(3650).default(90),
})

/** A service of every node: one systemd unit. */
export const serviceDefinitionSchema = z.strictObject({
  description: z.string().max(200).default(''),
  command: z.array(z.string().max(1000)).min(1).max(64),
  /** Names of the only directory, below the vault, that it may write. */
  directory: nameSchema,
  restart: z.enum(['always', 'on-failure', 'no']).default('always'),
  memoryMegabytes: z.number().int().min(8).optional(),
  syscalls: z
    .strictObject({
      groups: z.array(z.string().regex(/^@?[a-z0-9_-]+$/)).max(100),
      mode: z.enum(['audit', 'enforce']).default('audit'),
    })
    .optional(),
})

export type ServiceDefinition = z.infer<typeof serviceDefinitionSchema>

/** What must come true after a node's vault has opened, and stay so. */
export const healthCheckSchema = z.strictObject({
  kind: z.enum(['unit', 'http', 'tcp', 'command']),
  target: z.string().max(500),
  required: z.boolean().default(true),
  withinSeconds: z.number().int().min(1).max(3600).default(60),
})

export type HealthCheck = z.infer<typeof healthCheckSchema>

const limitsSchema = z.strictObject({
  /** From one source; strangers may make a fifth of them. */
  requestsPerMinute: z.number().int().min(60).default(1200),
  /** From one source, also over restarts. */
  loginsPerMinute: z.number().int().min(1).default(10),
  /** In the whole fleet. */
  enrolmentsPerHour: z.number().int().min(1).default(1000),
})

export const manifestSchema = z
  .strictObject({
    version: z.literal(1),
    cluster: nameSchema,
    holders: holdersSchema,
    /** Approvals by holders that a changed manifest needs; default the holders' threshold. */
    approvals: z.number().int().min(1).max(32).optional(),
    users: z.record(nameSchema, userSchema).default({}),
    releases: releaseKeysSchema.optional(),
    vault: vaultSchema.default({ unlock: 'peers' }),
    guardians: guardiansSchema.prefault({}),
    /** So many peers end the first node's temporary binding to the holders. */
    genesis: z.strictObject({ peers: z.number().int().min(2).max(64).default(5) }).prefault({}),
    /** The tunnel's address pool; /16 by default, so more than 253 nodes fit. */
    network: z.strictObject({ pool: z.cidrv4().default('10.88.0.0/16') }).prefault({}),
    services: z.record(nameSchema, serviceDefinitionSchema).default({}),
    healthChecks: z.record(nameSchema, healthCheckSchema).default({}),
    /** Panic 2 and 3, and reset, need a second person. */
    twoPersonRule: z.boolean().default(false),
    limits: limitsSchema.prefault({}),
  })
  .superRefine((manifest, context) => {
    for (const problem of problemsOf(manifest)) context.addIssue({ code: 'custom', ...problem })
  })

export type Manifest = z.infer<typeof manifestSchema>
export type ManifestInput = z.input<typeof manifestSchema>

interface Problem {
  path: string[]
  message: string
}

/** The rules that span several members. */
function problemsOf(manifest: {
  holders: z.infer<typeof holdersSchema>
  approvals?: number | undefined
  guardians: z.infer<typeof guardiansSchema>
  vault: z.infer<typeof vaultSchema>
  releases?: z.infer<typeof releaseKeysSchema> | undefined
}): Problem[] {
  const problems: Problem[] = []
  const { holders, approvals, guardians, vault, releases } = manifest
  if ('keys' in holders) {
    const keys = Object.values(holders.keys).map((key) => key.replace(/\s/g, ''))
    if (keys.length < holders.threshold) {
      problems.push({
        path: ['holders', 'threshold'],
        message: 'there are fewer holders than the threshold',
      })
    }
    if (new Set(keys).size !== keys.length) {
      problems.push({ path: ['holders', 'keys'], message: 'two holders have the same key' })
    }
    if ((approvals ?? 1) > keys.length) {
      problems.push({ path: ['approvals'], message: 'there are fewer holders than approvals' })
    }
  }
  const threshold = guardianThreshold(guardians)
  if (threshold + guardians.margin > guardians.count) {
    problems.push({
      path: ['guardians'],
      message: 'threshold plus margin exceed the number of guardians',
    })
  }
  if (vault.unlock !== 'peers' && vault.pins === undefined) {
    problems.push({ path: ['vault', 'pins'], message: 'this way to unlock needs pins' })
  }
  if (releases !== undefined && Object.keys(releases.keys).length < releases.threshold) {
    problems.push({
      path: ['releases', 'threshold'],
      message: 'there are fewer release keys than the threshold',
    })
  }
  return problems
}

/** Shares needed to open: stated, or a majority and never below 3 of 5 and more. */
export function guardianThreshold(guardians: {
  count: number
  threshold?: number | undefined
}): number {
  if (guardians.threshold !== undefined) return guardians.threshold
  const majority = Math.floor(guardians.count / 2) + 1
  return guardians.count >= 5 ? Math.max(3, majority) : majority
}
