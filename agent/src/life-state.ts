import { enrolmentSchema, guardianSchema } from '@holdfast/protocol/frames'
import { z } from 'zod'

// What a node remembers of its own life. It is the body of the boot state: every change of it is
// durable before anything is done because of it. There is no secret in it.

/** A guardian together with the exchange key it made for this ward and epoch. */
const boundGuardianSchema = guardianSchema.extend({
  key: z.record(z.string(), z.unknown()),
  signature: z.string().max(1024),
})

/** One epoch of guardians, as the coordinator orders it. */
const guardianSetSchema = z.strictObject({
  /** The coordinator's name of the order, to answer under. */
  id: z.string().max(64),
  epoch: z.number().int().min(1),
  threshold: z.number().int().min(1),
  guardians: z.array(boundGuardianSchema).min(1).max(63),
})
export type GuardianSet = z.infer<typeof guardianSetSchema>

/** Why an enrolment or a task cannot go on by itself. */
const reasonSchema = z.strictObject({ code: z.string().max(100), message: z.string().max(2000) })

const taskSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('enrol'),
    step: z.enum([
      'await_guardians',
      'probe',
      'format',
      'close',
      'reopen',
      'adopt',
      'report',
      'refused',
    ]),
    set: guardianSetSchema.optional(),
    reason: reasonSchema.optional(),
  }),
  z.strictObject({
    kind: z.literal('reshare'),
    step: z.enum(['bind', 'prove', 'drop', 'report']),
    set: guardianSetSchema,
    /** The new keyslot, once it has been made. */
    keyslot: z.number().int().optional(),
  }),
  z.strictObject({
    kind: z.literal('leave'),
    step: z.enum(['handover', 'close', 'erase', 'report']),
    command: z.string().max(64),
    /** Although other nodes still have this one as a guardian. */
    force: z.boolean().optional(),
  }),
  z.strictObject({
    kind: z.literal('wipe'),
    step: z.enum(['close', 'erase', 'report']),
    command: z.string().max(64),
  }),
  z.strictObject({
    kind: z.literal('panic'),
    level: z.union([z.literal(1), z.literal(2), z.literal(3)]),
    step: z.enum(['close', 'erase', 'report', 'forget']),
    command: z.string().max(64),
  }),
])
export type Task = z.infer<typeof taskSchema>

export const lifeStateSchema = z.strictObject({
  v: z.literal(1),
  phase: z.enum(['factory', 'enrolling', 'locked', 'open', 'rescue', 'left', 'wiped']),
  /** What is under way; its step is done again after a restart. */
  task: taskSchema.optional(),
  enrolment: enrolmentSchema.optional(),
  /** The guardians whose way in has been proven. */
  set: guardianSetSchema.optional(),
  /** True while the vault has its temporary first way in, until peers guard it. */
  genesis: z.boolean(),
  /** Why nothing but an operator's key may open the vault; a restart does not end it. */
  held: z.string().max(300).optional(),
  /** Pushed keys that opened nothing. */
  wrongKeys: z.number().int(),
  /** The newest last; for people. */
  lastErrors: z.array(z.string().max(500)).max(8),
})
export type LifeState = z.infer<typeof lifeStateSchema>

/** A machine that nobody has enrolled. */
export const factoryState: LifeState = {
  v: 1,
  phase: 'factory',
  genesis: false,
  wrongKeys: 0,
  lastErrors: [],
}
