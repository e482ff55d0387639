import { nodeRoutes } from './api-nodes.ts'
import { ceremonyRoutes, keyRoutes, manifestRoutes, statusRoutes } from './api-status.ts'
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
