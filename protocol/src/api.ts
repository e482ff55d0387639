import { ceremonyRoutes } from './api-ceremonies.ts'
import { nodeRoutes } from './api-nodes.ts'
import { keyRoutes, manifestRoutes } from './api-state.ts'
import { statusRoutes } from './api-status.ts'
import { userRoutes } from './api-users.ts'

/** Everything a coordinator can be asked over HTTPS. */
export const api = {
  status: statusRoutes,
  ceremonies: ceremonyRoutes,
  keys: keyRoutes,
  manifest: manifestRoutes,
  users: userRoutes,
  nodes: nodeRoutes,
} as const
