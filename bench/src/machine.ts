import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { run } from '@holdfast/base'

/** What the figures were measured on and with. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  /** OpenSSL inside Node, which ours uses. */
  readonly openssl: string
  /** Debian's libssl, which tangd and clevis use. */
  readonly opensslDebian: string
  readonly tang: string
  readonly clevis: string
  readonly jose: string
  readonly cryptsetup: string
  readonly socat: string
  /** Load average over one minute before the first measurement: what else the machine was doing. */
  readonly loadBefore: number
}

/** Reads the machine and the versions of everything measured. */
export async function describeMachine(): Promise<Machine> {
  const [tang, clevis, jose, cryptsetup, socat, libssl] = await Promise.all(
    ['tang', 'clevis', 'jose', 'cryptsetup-bin', 'socat', 'libssl3'].map(packageVersion),
  )
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.versions.node,
    openssl: process.versions.openssl,
    opensslDebian: libssl ?? 'none',
    tang: tang ?? 'none',
    clevis: clevis ?? 'none',
    jose: jose ?? 'none',
    cryptsetup: cryptsetup ?? 'none',
    socat: socat ?? 'none',
    loadBefore: loadavg()[0] ?? 0,
  }
}

async function packageVersion(name: string): Promise<string> {
  const { stdout } = await run('dpkg-query', ['--show', name], { accept: [0, 1] })
  return stdout.toString('utf8').trim().split('\t')[1] ?? 'not installed'
}
