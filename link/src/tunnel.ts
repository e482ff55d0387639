import type { RunningProgram } from '@holdfast/base'
import { type Argument, Fault, messageOf, type RunResult, run, startProgram } from '@holdfast/base'
import { linkFault } from './faults.ts'
import { type AskName, EndpointNames } from './tunnel-endpoints.ts'
import { renderTunnel, type TunnelConfig } from './wireguard.ts'

// Tunnels on this machine. The kernel's WireGuard is used where it is; else `wireguard-go`, which is
// the same protocol in a process; else none, and nodes talk by mutual TLS alone. Whichever it is
// goes into every status. Everything is applied anew from the wanted state, so a crash at any line
// is repaired by doing it again.

export type NetworkKind = 'kernel-wireguard' | 'wireguard-go' | 'mutual-tls'

export interface TunnelOptions {
  /** Name of the network interface, at most 15 characters. */
  name: string
  /** Own address with the pool's prefix length: `10.88.0.2/16`. */
  address: string
  /** Name of the network namespace to live in; default: the process's own. */
  namespace?: string
  /** Try only these, in this order. Default: the kernel, then wireguard-go. */
  kinds?: readonly Exclude<NetworkKind, 'mutual-tls'>[]
  /** Who knows the addresses of peers that have names. Default: this machine's resolver. */
  askName?: AskName
}

export interface TunnelPeerStatus {
  publicKey: string
  /** Where its last packet came from, `host:port`; undefined when none has come. */
  endpoint?: string
  /** Milliseconds since 1970 of the last handshake; undefined when there was none. */
  handshakeAt?: number
  receivedBytes: number
  sentBytes: number
}

export interface Tunnel extends AsyncDisposable {
  readonly kind: Exclude<NetworkKind, 'mutual-tls'>
  /** Resolves with a reason when the tunnel has gone by itself; start a new one then. */
  readonly lost: Promise<string>
  /**
   * Makes key, port and peers exactly these; running sessions of unchanged peers continue.
   * @returns which peers' endpoints cannot be used, and why: those must speak first until they can
   */
  apply(config: TunnelConfig): Promise<readonly string[]>
  status(): Promise<TunnelPeerStatus[]>
}

/** Why there is no tunnel; mutual TLS is what remains. */
export interface NoTunnel {
  readonly kind: 'mutual-tls'
  readonly reasons: readonly string[]
}

/** Makes the interface. @throws Fault link.wireguard_failed when it exists but cannot be set up */
export async function startTunnel(options: TunnelOptions): Promise<Tunnel | NoTunnel> {
  const reasons: string[] = []
  for (const kind of options.kinds ?? (['kernel-wireguard', 'wireguard-go'] as const)) {
    try {
      await removeInterface(options)
      const process = kind === 'wireguard-go' ? await startUserspace(options) : undefined
      if (process === undefined)
        await inside(options, 'ip', ['link', 'add', 'dev', options.name, 'type', 'wireguard'])
      return await raise(options, kind, process)
    } catch (error) {
      if (!(error instanceof Fault) || error.code === 'link.wireguard_failed') throw error
      reasons.push(`${kind}: ${error.message.split('\n')[0]}`)
    }
  }
  return { kind: 'mutual-tls', reasons }
}

async function raise(
  options: TunnelOptions,
  kind: Tunnel['kind'],
  process: RunningProgram | undefined,
): Promise<Tunnel> {
  const { name, address } = options
  const remove = async () => {
    await process?.[Symbol.asyncDispose]()
    await removeInterface(options)
  }
  try {
    await inside(options, 'ip', ['address', 'replace', address, 'dev', name])
    // 1420 leaves room for WireGuard's own headers over IPv6 on a path of 1500 bytes.
    await inside(options, 'ip', ['link', 'set', 'dev', name, 'mtu', '1420', 'up'])
  } catch (cause) {
    await remove()
    throw failed(name, cause)
  }
  const names = new EndpointNames(options.askName)
  return {
    kind,
    lost:
      process?.ended.then((code) => `wireguard-go ended with code ${code}`) ??
      new Promise(() => undefined),
    apply: async (config) => {
      const { peers, left } = await names.resolve(config.peers)
      using text = renderTunnel({ ...config, peers })
      await inside(options, 'wg', ['syncconf', name, text]).catch((cause: unknown) => {
        throw failed(name, cause)
      })
      return left
    },
    status: async () =>
      parseStatus(await shown(options, 'latest-handshakes', 'transfer', 'endpoints')),
    [Symbol.asyncDispose]: remove,
  }
}

async function startUserspace(options: TunnelOptions): Promise<RunningProgram> {
  const words = ['wireguard-go', '-f', options.name]
  const [program = '', ...args] =
    options.namespace === undefined ? words : ['ip', 'netns', 'exec', options.namespace, ...words]
  const { running } = await startProgram(
    program,
    args,
    (line) => line.includes('UAPI listener started'),
    { environment: { LOG_LEVEL: 'verbose' } }, // the ready line is only said to those who listen
  )
  return running
}

/** A tunnel that an earlier, killed process left behind; its wireguard-go ends with the interface. */
async function removeInterface(options: TunnelOptions): Promise<void> {
  const args = ['link', 'delete', 'dev', options.name]
  await inside(options, 'ip', args, [0, 1]) // 1: there is none
}

async function shown(
  options: TunnelOptions,
  ...what: readonly string[]
): Promise<readonly string[]> {
  const texts: string[] = []
  for (const each of what) {
    const { stdout } = await inside(options, 'wg', ['show', options.name, each])
    texts.push(stdout.toString('utf8'))
  }
  return texts
}

/** Reads `wg show NAME latest-handshakes`, `… transfer`, `… endpoints`: tab-separated, one peer a line. */
function parseStatus(texts: readonly string[]): TunnelPeerStatus[] {
  const [handshakes = '', transfers = '', endpoints = ''] = texts
  const rows = (text: string) =>
    text
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split('\t'))
  const at = new Map(rows(handshakes).map(([key = '', seconds]) => [key, Number(seconds)]))
  const from = new Map(rows(endpoints).map(([key = '', endpoint = '(none)']) => [key, endpoint]))
  return rows(transfers).map(([publicKey = '', received, sent]) => {
    const seconds = at.get(publicKey) ?? 0
    const endpoint = from.get(publicKey) ?? '(none)'
    return {
      publicKey,
      ...(endpoint === '(none)' ? {} : { endpoint }),
      receivedBytes: Number(received),
      sentBytes: Number(sent),
      ...(seconds === 0 ? {} : { handshakeAt: seconds * 1000 }),
    }
  })
}

async function inside(
  { namespace }: TunnelOptions,
  program: string,
  args: readonly Argument[],
  accept: readonly number[] = [0],
): Promise<RunResult> {
  const options = { accept, timeout: 10_000 }
  return namespace === undefined
    ? await run(program, args, options)
    : await run('ip', ['netns', 'exec', namespace, program, ...args], options)
}

function failed(name: string, cause: unknown): Error {
  return linkFault(
    'link.wireguard_failed',
    `the tunnel ${name} cannot be set up: ${messageOf(cause)}`,
    { cause, hint: 'check with: ip link; wg show' },
  )
}
