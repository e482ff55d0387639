import { mkdtemp, rm } from 'node:fs/promises'
import { freePort } from './free-port.ts'
import { run } from './run.ts'
import { startProgram } from './spawn.ts'

/** For tests of several parts: a real TPM 2.0 in software. */
export interface Swtpm extends AsyncDisposable {
  /** For TPM2TOOLS_TCTI. */
  readonly tcti: string
  /** Extends a PCR's sha256 and sha1 banks, as a changed boot would. */
  extend(pcr: number): Promise<void>
  /** Frees what tools left in the TPM: there is no resource manager. */
  flush(): Promise<void>
}

export async function startSwtpm(): Promise<Swtpm> {
  const home = await mkdtemp('/tmp/holdfast-swtpm-')
  const port = await freePair()
  const at = (number: number) => `type=tcp,port=${number},bindaddr=127.0.0.1`
  const words = ['socket', '--tpm2', '--tpmstate', `dir=${home}`]
  const ports = ['--server', at(port), '--ctrl', at(port + 1)]
  const flags = ['--flags', 'not-need-init,startup-clear']
  const command = ['swtpm', ...words, ...ports, ...flags].join(' ')
  const { running } = await startProgram('bash', ['-c', `echo; exec ${command}`], () => true)
  const tcti = `swtpm:host=127.0.0.1,port=${port}`
  const environment = { TPM2TOOLS_TCTI: tcti }
  try {
    await untilItAnswers(environment)
  } catch (error) {
    await running[Symbol.asyncDispose]()
    throw error
  }
  return {
    tcti,
    extend: async (pcr) => {
      const digests = `sha1=${'1'.repeat(40)},sha256=${'1'.repeat(64)}`
      await run('tpm2_pcrextend', [`${pcr}:${digests}`], { environment })
    },
    flush: async () => {
      await run('tpm2_flushcontext', ['-t', '-l', '-s'], { environment })
    },
    [Symbol.asyncDispose]: async () => {
      await running[Symbol.asyncDispose]()
      await rm(home, { recursive: true, force: true })
    },
  }
}

async function untilItAnswers(environment: Record<string, string>): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt += 1) {
    const accept = Array.from({ length: 256 }, (_, code) => code)
    const { code } = await run('tpm2_getrandom', ['--hex', '1'], { environment, accept })
    if (code === 0) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('swtpm does not answer')
}

/**
 * A port that is given to nobody else, nor is its successor, where swtpm's tools expect the control
 * channel.
 */
async function freePair(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const first = await freePort()
    if ((await freePort('127.0.0.1', () => first + 1)) === first + 1) return first
  }
  throw new Error('there are no two free ports in a row')
}
