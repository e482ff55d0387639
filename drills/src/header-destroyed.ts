import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { run } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { type HeaderBackup, listBackups, readUuid, restoreHeader } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { holdersPresent } from './holders.ts'
import { depsOf, type RunningFleet } from './local-fleet.ts'
import { makeOwned, opens, setFleet, unattended } from './scene.ts'

/** Bytes of header and keyslot areas in front of the data: cryptsetup's default. */
const headerSize = 16 * 1024 * 1024

/** Something overwrote the beginning of the disk. */
export const headerDestroyed: Drill = {
  name: 'header-destroyed',
  title: 'The header of a volume is destroyed',
  summary:
    'The first 16 MiB of a disk are overwritten with zeros: both header copies and all keyslots. Two of three holders restore the sealed header backup; one holder, or the backup of another volume, changes nothing.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const fleet = await setFleet(stage)
    const { device, stateDirectory } = fleet.volume
    const machine = unattended(stateDirectory)
    const backup = await latestBackup(fleet, device)
    const other = await makeOwned(stage, fleet.deps, 'other', fleet.volume.automatic)
    const foreign = await latestBackup(fleet, other.device)
    await bothWaysAreProven(stage, fleet, 'both ways in are proven')
    const before = await metadataOf(device)
    await zeroHeader(device)
    timeline.note('the header is overwritten with zeros', { device, bytes: headerSize })
    const zeroed = await digestOfHeader(device)
    await timeline.refuses('nothing opens the volume', ['vault.not_luks'], () =>
      opens(stage, 'it opens', machine, fleet.volume),
    )
    const { ways } = await fleet.rehearse(signal)
    const failing = ways.length === 2 && ways.every(({ state }) => state === 'failed')
    timeline.proves('the live table shows both ways as failing', failing, {
      ways: ways.map(({ way, state, fault }) => ({ way, state, code: fault?.code })),
    })

    await timeline.refuses('the backup of another volume', ['vault.backup_foreign'], () =>
      restoreHeader(withHolders(fleet, 3), { device }, foreign),
    )
    await timeline.refuses('one holder is not enough', ['seal.threshold_not_met'], () =>
      restoreHeader(withHolders(fleet, 1), { device }, backup),
    )
    timeline.proves('neither changed the disk', (await digestOfHeader(device)) === zeroed)
    const { because, proof } = await restoreHeader(withHolders(fleet, 2), { device }, backup)
    timeline.proves('two holders restore it and a way in is proven', proof !== undefined, {
      because,
      ...proof,
    })
    const same = (await metadataOf(device)).equals(before)
    timeline.proves('its metadata is what it was: keyslots, tokens, digests', same)
    await opens(stage, 'the volume opens by itself', machine, fleet.volume)
    await bothWaysAreProven(stage, fleet, 'both ways in are proven again')
  },
}

/** The newest sealed backup that Holdfast made of this volume's header. */
export async function latestBackup(fleet: RunningFleet, device: string): Promise<HeaderBackup> {
  const uuid = await readUuid({ device })
  const { backups } = await listBackups(fleet.volume.stateDirectory, uuid)
  const latest = backups.at(-1)
  if (latest === undefined) throw new Error(`${device} has no header backup`)
  return latest
}

/** The operator's means with the first `count` holders at hand. */
export function withHolders({ volume, holders }: RunningFleet, count: number) {
  const present = holdersPresent(holders.slice(0, count))
  return depsOf(volume.stateDirectory, createPins({ holders: present }), volume.recovery)
}

async function bothWaysAreProven(
  { timeline, signal }: Stage,
  fleet: RunningFleet,
  step: string,
): Promise<void> {
  const { ways } = await fleet.rehearse(signal)
  const proven = ways.length === 2 && ways.every(({ state }) => state === 'proven')
  timeline.proves(step, proven, {
    ways: ways.map(({ way, state, margin }) => ({ way, state, margin })),
  })
}

/** The LUKS2 metadata as cryptsetup reads it. */
async function metadataOf(device: string): Promise<Buffer> {
  const { stdout } = await run('cryptsetup', ['luksDump', '--dump-json-metadata', device])
  return stdout
}

async function digestOfHeader(device: string): Promise<string> {
  const file = await open(device)
  try {
    const bytes = Buffer.alloc(headerSize)
    const { bytesRead } = await file.read(bytes, 0, headerSize, 0)
    return createHash('sha256').update(bytes.subarray(0, bytesRead)).digest('hex')
  } finally {
    await file.close()
  }
}

async function zeroHeader(device: string): Promise<void> {
  const file = await open(device, 'r+')
  try {
    await file.write(Buffer.alloc(headerSize), 0, headerSize, 0)
    await file.sync()
  } finally {
    await file.close()
  }
}
