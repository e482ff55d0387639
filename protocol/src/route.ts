import { createRoute, z } from '@hono/zod-openapi'
import type { CoordinatorState } from './codes.ts'
import type { Role } from './manifest.ts'

/** Who may call: anybody, a holder or agent proving itself in the body, or a user in a role. */
export type Access = 'anyone' | 'proof' | 'agent' | 'user' | readonly Role[]

/** What a route is besides its shape: who may call it, and in which states it answers. */
export interface RouteRules {
  access: Access
  /** Default: running only. */
  states?: readonly CoordinatorState[]
}

export const everyState: readonly CoordinatorState[] = [
  'uninitialised',
  'recovery',
  'ready',
  'running',
]

/** An error on the wire: the fault's stable code, its cause in words, and what to do. */
export const errorSchema = z
  .object({
    error: z.object({
      code: z.string(),
      kind: z.string(),
      message: z.string(),
      hint: z.string().optional(),
      details: z.record(z.string(), z.unknown()).optional(),
    }),
  })
  .openapi('Error')

interface Definition<P extends string, B extends z.ZodType, O extends z.ZodType>
  extends RouteRules {
  id: string
  method: 'get' | 'post' | 'put' | 'delete'
  path: P
  summary: string
  params?: z.ZodObject
  query?: z.ZodObject
  body?: B
  output: O
  /** What the answer is when it is not JSON; it comes in parts then. */
  media?: string
}

/** A route as data: server, client, command line and OpenAPI document come from the same value. */
export function route<const P extends string, B extends z.ZodType, O extends z.ZodType>(
  definition: Definition<P, B, O>,
) {
  const { id, method, path, summary, params, query, body, output, access, states } = definition
  const { media = 'application/json' } = definition
  const json = (schema: z.ZodType) => ({ 'application/json': { schema } })
  const spec = createRoute({
    operationId: id,
    method,
    path,
    summary,
    request: {
      ...(params === undefined ? {} : { params }),
      ...(query === undefined ? {} : { query }),
      ...(body === undefined ? {} : { body: { content: json(body), required: true } }),
    },
    responses: {
      200: { description: 'done', content: { [media]: { schema: output } } },
      default: { description: 'refused or failed, with a stable code', content: json(errorSchema) },
    },
  })
  const rules: RouteRules = { access, states: states ?? ['running'] }
  return { id, spec, rules, params, query, body: body as B, output: output as O, media } // absent body stays undefined
}

export type AnyRoute = ReturnType<typeof route>
