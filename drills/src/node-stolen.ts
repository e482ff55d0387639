import { join } from 'node:path'
import { isFault } from '@holdfast/base'
import { rekeyFleet, unlockVault } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { serversPolicy } from './local-fleet.ts'
import { copyDisk, keysOf, makeOwned, opens, setFleet, shut, unattended } from './scene.ts'
import type { ServerProcess } from './server-process.ts'

/** The guide's first disaster: the loss of a node is none, and its theft is answered by a rotation. */
export const nodeStolen: Drill = {
  name: 'node-stolen',
  title: 'A node is stolen',
  summary:
    'One of three nodes is taken with its disk. All key servers rotate, the other nodes are rekeyed, the old keys are destroyed; the stolen disk no longer opens, not even beside the key servers.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const fleet = await setFleet(stage)
    const policy = await serversPolicy(fleet.servers, 2)
    const kept = [fleet.volume, await makeOwned(stage, fleet.deps, 'node-2', policy)]
    const taken = await makeOwned(stage, fleet.deps, 'node-3', policy)
    const thief = unattended(join(directory, 'thief'))
    const stolen = await copyDisk(taken, join(directory, 'stolen.img'))
    timeline.note('node 3 is stolen', { disk: stolen.device })
    await opens(
      stage,
      'until we act, the disk opens for whoever reaches two servers',
      thief,
      stolen,
    )

    const old = (await Promise.all(fleet.servers.map(keysOf))).flat()
    await rotateAll(stage, fleet.servers)
    const volumes = kept.map(({ device }) => ({ device }))
    const done = await rekeyFleet(fleet.deps, { id: 'theft', volumes, affected: old })
    timeline.proves('the other nodes are rekeyed', done.failed.length === 0, {
      rekeyed: done.rekeyed.map(({ device, keyslots }) => ({ device, keyslots })),
    })
    await destroyAll(stage, fleet.servers, old)

    const fault = await timeline.refuses('the stolen disk no longer opens', shut, () =>
      unlockVault(thief, stolen, { testOnly: true }),
    )
    const reasons = reasonsOf(fault)
    const gone = reasons.length === 3 && reasons.every((code) => code === 'seal.server_refused')
    timeline.proves('all three servers answer, and none has the key', gone, { reasons })
    for (const volume of kept) {
      await opens(stage, 'a node that was not stolen opens', fleet.deps, volume)
    }
  },
}

/** Rotates every server. */
async function rotateAll({ timeline }: Stage, servers: readonly ServerProcess[]): Promise<void> {
  for (const server of servers) {
    const { created } = await server.administration.rotate()
    timeline.note('keys are rotated', { server: server.name, created: created.map((k) => k.kid) })
  }
}

/** Destroys these keys wherever they are, after showing that it is not done by accident. */
async function destroyAll(
  { timeline }: Stage,
  servers: readonly ServerProcess[],
  kids: readonly string[],
): Promise<void> {
  for (const server of servers) {
    const own = (await keysOf(server)).filter((kid) => kids.includes(kid))
    const { administration, name } = server
    await timeline.refuses(
      `${name} does not destroy keys that were used today without being forced`,
      ['keyserver.retire_refused'],
      () => administration.retire({ kids: own }),
    )
    const { destroy } = await administration.retire({ kids: own, force: true })
    timeline.proves('old keys are destroyed', destroy.length === own.length, { server: name, own })
  }
}

/** The codes of every pin that did not open, from the bottom of a fault's details. */
function reasonsOf(fault: unknown): string[] {
  if (!isFault(fault)) return []
  return codesIn(fault.details)
}

function codesIn(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(codesIn)
  if (typeof value !== 'object' || value === null) return []
  const members = Object.entries(value)
  const inner = members.flatMap(([, member]) => codesIn(member))
  if (inner.length > 0) return inner
  return members.flatMap(([name, member]) =>
    name === 'code' && typeof member === 'string' ? [member] : [],
  )
}
