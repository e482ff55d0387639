import assert from 'node:assert/strict'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { Finding } from './doctor-findings.ts'
import type { Node } from './node-place.ts'
import { parse } from './program.ts'
import { commandTree } from './tree.ts'

// Nodes as a coordinator tells of them, and what the tests of the doctor ask of its findings.

/** When everything happens. */
export const now = 1_800_000_000_000
export const yes = { ok: true, value: true } as const
export const no = (code: string, message = 'no') => ({ ok: false, code, message }) as const
export const id = (name: string) => name.padEnd(43, '0')

export function broken(findings: readonly Finding[]): Finding | undefined {
  return findings.find(({ state }) => state === 'failed')
}

/** Every command that the doctor names exists and is understood; NAME and FILE stand for anything. */
export async function requireCommands(findings: readonly Finding[]): Promise<void> {
  for (const { next = [] } of findings) {
    for (const line of next.filter((each) => each.startsWith('holdfast '))) {
      const words = line
        .replace(/ +#.*$/, '')
        .split(' ')
        .slice(1)
      await assert.doesNotReject(parse(commandTree, words, '0'), line)
    }
  }
}

export function report(changes: Partial<NodeReport> = {}): NodeReport {
  const way = { keyslot: 1, purpose: 'automatic', label: 'epoch 1', state: 'proven' } as const
  const back = { keyslot: 0, purpose: 'recovery', label: '', state: 'not_tried' } as const
  return {
    ...{ phase: 'open', generation: 1, epoch: 1, threshold: 2, guardians: [], wards: 0 },
    ...{ ways: [way, back], mapped: true, network: 'mutual-tls', services: {}, incidents: [] },
    ...{ lastErrors: [], uptimeSeconds: 60, ...changes },
  }
}

/** An open node with three guardians of which two are needed. */
export function node(name: string, changes: Partial<Node> = {}): Node {
  return {
    ...{ node: id(name), name, address: '192.0.2.1', phase: 'open', connected: true },
    ...{ heardAt: now, epoch: 1, threshold: 2, guardians: ['a1', 'b2', 'c3'].map(id) },
    ...{ wards: [], frozen: false, ...changes },
  }
}
