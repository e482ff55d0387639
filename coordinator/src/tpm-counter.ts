import { createHash } from 'node:crypto'
import { access, constants } from 'node:fs/promises'
import { isFault, type RunOptions, run } from '@holdfast/base'
import { coordinatorFault } from './faults.ts'
import type { GenerationCounter } from './witness.ts'

// An NV counter of the TPM through tpm2-tools (TPM 2.0 library part 1, 37.2.3): the TPM increments it
// and nobody sets it; one that is removed and made again begins above all that the TPM ever had.

const device = '/dev/tpmrm0'
const attributes = 'ownerread|ownerwrite|nt=counter'
/** The range of NV indices that TCG leaves to owners, of which the last 16 bits are ours. */
const firstHandle = 0x0180_0000

/** The TPM's address for tpm2-tools if this machine has one that we may use. */
export async function findTpm(): Promise<string | undefined> {
  try {
    await access(device, constants.R_OK | constants.W_OK)
    return `device:${device}`
  } catch {
    return undefined
  }
}

/** @param tcti TPM2TOOLS_TCTI, such as `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321` */
export function tpmCounter(tcti: string): GenerationCounter {
  const options: RunOptions = { environment: { TPM2TOOLS_TCTI: tcti }, timeout: 30_000 }
  const exists = async (handle: string): Promise<boolean> => {
    const stdout = await tpm('tpm2_getcap', ['handles-nv-index'], options)
    return stdout.toString('utf8').toLowerCase().includes(`- ${handle}\n`)
  }
  const read = async (handle: string): Promise<number> => {
    const value = await tpm('tpm2_nvread', ['-C', 'o', '-s', '8', handle], options)
    return Number(value.readBigUInt64BE())
  }
  return {
    read: async (cluster) => {
      const handle = handleOf(cluster)
      if (!(await exists(handle))) return undefined
      try {
        return await read(handle)
      } catch (error) {
        // Made and never advanced: a crash came between the two.
        if (isFault(error) && error.message.includes('before being initialized')) return undefined
        throw error
      }
    },
    advance: async (cluster) => {
      const handle = handleOf(cluster)
      if (!(await exists(handle)))
        await tpm('tpm2_nvdefine', ['-Q', '-C', 'o', '-s', '8', '-a', attributes, handle], options)
      await tpm('tpm2_nvincrement', ['-Q', '-C', 'o', handle], options)
      return await read(handle)
    },
  }
}

/** A cluster's own index, as tpm2_getcap prints it. */
function handleOf(cluster: string): string {
  const own = createHash('sha256').update(`holdfast ${cluster}`).digest().readUInt16BE()
  return `0x${(firstHandle + own).toString(16)}`
}

async function tpm(program: string, args: readonly string[], options: RunOptions): Promise<Buffer> {
  try {
    return (await run(program, args, options)).stdout
  } catch (cause) {
    if (!isFault(cause, 'base.program_failed')) throw cause
    throw coordinatorFault(
      'coordinator.tpm_failed',
      `the TPM did not answer ${program}: ${cause.message}`,
      { cause, hint: 'repair the TPM, or start with --tpm off and let the holders decide' },
    )
  }
}
