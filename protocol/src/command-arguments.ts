import { z } from 'zod'
import type { CommandKind } from './codes.ts'
import { nodeReportSchema } from './frames.ts'
import { recoveryWaySchema } from './locked-state.ts'
import { nameSchema, publicKeySchema, sealedSchema } from './names.ts'

// What each command takes and what its result carries. The coordinator checks `arguments` before it
// writes a command down, the agent again before it acts; whoever shows a result checks `data`.
// Arguments are strict: a misspelt one must not become a command without it.

const none = z.strictObject({})

/** How a service stands. `refused`: the node will not start it; `detail` says why. */
const serviceStateSchema = z.enum(['running', 'failed', 'stopped', 'refused'])

const serviceSchema = z.object({
  name: nameSchema,
  state: serviceStateSchema,
  /** The systemd unit, where there is one. */
  unit: z.string().max(300).optional(),
  detail: z.string().max(1000).optional(),
})
export type ServiceStatus = z.infer<typeof serviceSchema>

/** Most lines that `logs` gives at once. */
const mostLogLines = 2000

/** The steps of a first boot, in their order. */
export const firstBootSteps = [
  'identity',
  'tpm-binding',
  'signing-keys',
  'service-tokens',
  'canaries',
] as const
export type FirstBootStep = (typeof firstBootSteps)[number]

/** `kept`: it was so already; `made`: it was not; `renewed`: made anew on request; `absent`: not here. */
const stepOutcomes = ['kept', 'made', 'renewed', 'absent'] as const

const firstBootStepSchema = z.object({
  name: z.enum(firstBootSteps),
  outcome: z.enum(stepOutcomes),
  detail: z.string().max(1000).optional(),
})

/** What is destroyed, and what survives: the vault's own receipt, whose members depend on the level. */
const receiptSchema = z.record(z.string(), z.unknown())

export const commandArguments = {
  status: none,
  services: none,
  restart: z.strictObject({ service: nameSchema }),
  logs: z.strictObject({
    /** Without one: the agent's own and the system's. */
    service: nameSchema.optional(),
    lines: z.number().int().min(1).max(mostLogLines).default(200),
    sinceMinutes: z.number().int().min(1).max(527_040).optional(),
  }),
  /** `force`: even when services do not stop in time. */
  reboot: z.strictObject({ force: z.boolean().default(false) }),
  rehearse: none,
  rekey: none,
  /** A compact JWE of the passphrase, for the node's exchange key. */
  unlock: z.strictObject({ sealed: sealedSchema.max(20_000) }),
  /** `force`: although wards fall below their margin. */
  leave: z.strictObject({ force: z.boolean().default(false) }),
  reset: none,
  panic: z.strictObject({
    level: z.union([z.literal(1), z.literal(2), z.literal(3)]),
    dryRun: z.boolean().default(false),
  }),
  'first-boot': z.strictObject({
    renew: z.array(z.enum(firstBootSteps)).max(firstBootSteps.length).default([]),
  }),
} satisfies Record<CommandKind, z.ZodType>

export const commandData = {
  status: z.object({
    report: nodeReportSchema,
    /** Things meant for this node alone are sealed for this key. */
    exchange: publicKeySchema,
    recovery: z.array(recoveryWaySchema).max(32),
  }),
  services: z.object({ services: z.array(serviceSchema) }),
  restart: z.object({ service: serviceSchema }),
  /** The lines themselves came as `output`; `truncated` says that there were more. */
  logs: z.object({ lines: z.number().int(), truncated: z.boolean() }),
  /** Boot ids of the kernel before and after: they differ, or it was no reboot. */
  reboot: z.object({ before: z.string().max(64), after: z.string().max(64) }),
  rehearse: z.looseObject({
    ways: z.array(z.looseObject({ keyslot: z.number().int(), state: z.string() })),
  }),
  rekey: z.looseObject({
    ways: z.array(z.looseObject({ keyslot: z.number().int(), label: z.string() })),
  }),
  unlock: z.object({ report: nodeReportSchema }),
  leave: z.looseObject({ what: z.literal('left') }),
  reset: z.looseObject({ what: z.literal('wiped'), receipt: receiptSchema.optional() }),
  /** A dry run gives the plan in place of the receipt. */
  panic: z.looseObject({ receipt: receiptSchema.optional(), plan: receiptSchema.optional() }),
  'first-boot': z.object({ steps: z.array(firstBootStepSchema) }),
} satisfies Record<CommandKind, z.ZodType>

/** Arguments of a command with their defaults filled in. */
export type CommandArguments<Kind extends CommandKind> = z.infer<(typeof commandArguments)[Kind]>
/** What a successful result of a command carries. */
export type CommandData<Kind extends CommandKind> = z.infer<(typeof commandData)[Kind]>

/** Checks arguments and fills in defaults. @throws ZodError */
export function parseArguments<Kind extends CommandKind>(
  kind: Kind,
  given: unknown,
): CommandArguments<Kind> {
  return commandArguments[kind].parse(given) as CommandArguments<Kind> // the table has it by the kind
}

/** Checks the data of a successful result. @throws ZodError */
export function parseCommandData<Kind extends CommandKind>(
  kind: Kind,
  data: unknown,
): CommandData<Kind> {
  return commandData[kind].parse(data) as CommandData<Kind> // as above
}
