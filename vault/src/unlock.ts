import type { Secret } from '@holdfast/base'
import { readInventory } from './apply.ts'
import { hasDeviceMapper, openMapping, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { volumeKeyOf } from './header-format.ts'
import { headerRecord, requireSameVolumeKey } from './header-record.ts'
import type { Inventory } from './inventory.ts'
import { openVault, type Vault, type VaultDeps } from './state.ts'
import { openAnyWay, type WayOptions } from './ways.ts'

export interface UnlockOptions extends WayOptions {
  /** Name of the mapping under /dev/mapper. Default `luks-UUID`. */
  name?: string
  /** Prove only, even where it could be mapped. */
  testOnly?: boolean
}

export interface Unlocked {
  uuid: string
  keyslot: number | undefined
  by: 'binding' | 'passphrase'
  /** `mapped`: the volume is open at `path`. `tested`: it would open; nothing was mapped. */
  state: 'mapped' | 'tested'
  path?: string
  /** Why it was only tested, for people. */
  notice?: string
}

/**
 * Opens a volume by whichever binding answers first, and maps it where the kernel can. Elsewhere
 * the passphrase is proven at the real keyslot and the result says that nothing was mapped.
 * @throws Fault vault.no_way_in, vault.slot_unbound, vault.not_luks, vault.volume_replaced ...
 */
export async function unlockVault(
  deps: VaultDeps,
  volume: VolumeRef,
  options: UnlockOptions = {},
): Promise<Unlocked> {
  const vault = await openVault(deps, volume)
  const inventory = await readInventory(vault)
  await requireKnown(deps, vault, inventory)
  const way = await openAnyWay(vault, inventory, options)
  using passphrase = way.passphrase
  return await mapOrTest(vault, passphrase, way, options)
}

async function requireKnown(
  { stateDirectory }: VaultDeps,
  { uuid, volume }: Vault,
  { metadata }: Inventory,
): Promise<void> {
  const known = await headerRecord(stateDirectory, uuid).read()
  const volumeKey = volumeKeyOf(metadata.json)
  requireSameVolumeKey(known, { uuid, device: volume.device, volumeKey })
}

/** Maps the volume with a passphrase that has been proven, where that is possible and wanted. */
export async function mapOrTest(
  vault: Vault,
  passphrase: Secret,
  way: Pick<Unlocked, 'keyslot' | 'by'>,
  options: Pick<UnlockOptions, 'name' | 'testOnly'>,
): Promise<Unlocked> {
  const name = options.name ?? `luks-${vault.uuid}`
  requireMappingName(name)
  const opened = { uuid: vault.uuid, keyslot: way.keyslot, by: way.by }
  if (options.testOnly === true) return { ...opened, state: 'tested' }
  if (!(await hasDeviceMapper())) {
    const notice = 'this kernel has no device-mapper: the passphrase was proven, nothing was mapped'
    return { ...opened, state: 'tested', notice }
  }
  return {
    ...opened,
    state: 'mapped',
    path: await openMapping(vault.volume, name, passphrase, way.keyslot),
  }
}

/** Device-mapper names of at most 127 characters; one that begins with - would be an option. */
function requireMappingName(name: string): void {
  if (/^[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}$/.test(name)) return
  throw vaultFault('vault.name_invalid', `${JSON.stringify(name)} cannot name a mapping`, {
    hint: 'use letters, digits, dot, plus, hyphen and underscore, not beginning with a hyphen',
  })
}
