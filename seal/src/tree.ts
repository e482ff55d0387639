import type { Jwe } from '@holdfast/crypto'
import { malformed, parseSealed, pinNameOf } from './header.ts'
import { depthLimit, leafLimit } from './policy.ts'
import { readThreshold } from './share-set.ts'

/**
 * Parses a whole sealed secret and bounds the work it can ask for: what comes from a disk may be made
 * to fan out into thousands of requests. Children that cannot be read count as one pin each; they
 * are reported when their turn comes and do not spoil the others.
 * @throws Fault seal.sealed_malformed
 */
export function parseTree(text: string): Jwe {
  const root = parseSealed(text)
  if (countLeaves(root, 0) > leafLimit) throw malformed(`it has more than ${leafLimit} pins`)
  return root
}

function countLeaves(jwe: Jwe, depth: number): number {
  if (pinNameOf(jwe) !== 'sss') return 1
  if (depth >= depthLimit) throw malformed(`its thresholds are nested deeper than ${depthLimit}`)
  let leaves = 0
  for (const text of readThreshold(jwe).children) {
    const child = readable(text)
    leaves += child === undefined ? 1 : countLeaves(child, depth + 1)
    if (leaves > leafLimit) break
  }
  return leaves
}

/** The child, or undefined when it cannot be read as a pin or a threshold. */
function readable(text: string): Jwe | undefined {
  try {
    const child = parseSealed(text)
    if (pinNameOf(child) === 'sss') readThreshold(child)
    return child
  } catch {
    return undefined
  }
}
