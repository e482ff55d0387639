import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Secret } from '@holdfast/base'
import type { Peer } from '@holdfast/protocol/documents'
import { linkFault } from './faults.ts'

// WireGuard's configuration as data. The node makes its own key; nobody else ever sees it. Peers are
// exactly the machines on a signed list: guardians, wards and the coordinator.

/** UDP port of tunnels unless configured otherwise. */
export const tunnelPort = 51_820

/** A new X25519 key. */
export function makeTunnelKey(): KeyObject {
  return generateKeyPairSync('x25519').privateKey
}

/** The public key as `wg` writes it: base64 of 32 bytes. */
export function tunnelPublicKey(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  const { x = '' } = publicKey.export({ format: 'jwk' })
  return Buffer.from(x, 'base64url').toString('base64')
}

/** The private key as `wg` reads it. */
export function tunnelPrivateKey(key: KeyObject): Secret {
  const { d = '' } = key.export({ format: 'jwk' })
  return Secret.copy(Buffer.from(d, 'base64url').toString('base64'))
}

/** Reads a private key written by `wg genkey`. */
export function readTunnelKey(text: Secret): KeyObject {
  const raw = Buffer.from(text.reveal().toString('latin1'), 'base64')
  // RFC 8410 section 7: the fixed head of an X25519 private key in PKCS#8.
  const head = Buffer.from('302e020100300506032b656e04220420', 'hex')
  try {
    return createPrivateKey({ key: Buffer.concat([head, raw]), format: 'der', type: 'pkcs8' })
  } finally {
    raw.fill(0)
  }
}

export interface TunnelPeer {
  /** base64 of 32 bytes. */
  publicKey: string
  /** The only addresses this peer may have in the tunnel, with prefix lengths. */
  allowed: readonly string[]
  /** `host:port`; without it, or while it cannot be used, the peer must speak first. */
  endpoint?: string
  /** Seconds between packets that keep a way through address translation open. */
  keepalive?: number
}

export interface TunnelConfig {
  key: KeyObject
  port: number
  peers: readonly TunnelPeer[]
}

/** Says whether this is a public key as `wg` writes it. */
export function isTunnelKey(text: string): boolean {
  return keyPattern.test(text)
}

/**
 * The peers of a signed list, each with its one address. Left out are those without a tunnel, and those
 * whose key cannot be used or is another's as well: one peer's nonsense must not take the tunnels to
 * all the others, nor their addresses.
 */
export function peersOf(peers: readonly Peer[]): TunnelPeer[] {
  const times = new Map<string, number>()
  for (const { wireguard } of peers) times.set(wireguard, (times.get(wireguard) ?? 0) + 1)
  return peers
    .filter(({ wireguard }) => isTunnelKey(wireguard) && times.get(wireguard) === 1)
    .map(({ wireguard, address, endpoint }) => ({
      publicKey: wireguard,
      allowed: [`${address}/32`],
      keepalive: 25,
      ...(endpoint === undefined ? {} : { endpoint }),
    }))
}

const keyPattern = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/
const rangePattern = /^[0-9a-fA-F.:]+\/\d{1,3}$/
const endpointPattern = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/

/**
 * The text that `wg syncconf` reads (wg(8), configuration file format).
 * @throws Fault link.address_invalid for anything that could start a line of its own
 */
export function renderTunnel(config: TunnelConfig): Secret {
  using privateKey = tunnelPrivateKey(config.key)
  const head = `[Interface]\nPrivateKey = ${privateKey.reveal().toString('latin1')}\nListenPort = ${config.port}\n`
  return Secret.copy(head + config.peers.map(renderPeer).join(''))
}

function renderPeer(peer: TunnelPeer): string {
  const { publicKey, allowed, endpoint, keepalive } = peer
  const lines = [
    '',
    '[Peer]',
    `PublicKey = ${checked(publicKey, keyPattern)}`,
    `AllowedIPs = ${allowed.map((range) => checked(range, rangePattern)).join(', ')}`,
  ]
  if (endpoint !== undefined) lines.push(`Endpoint = ${checked(endpoint, endpointPattern)}`)
  if (keepalive !== undefined) lines.push(`PersistentKeepalive = ${Math.trunc(keepalive)}`)
  return `${lines.join('\n')}\n`
}

function checked(text: string, pattern: RegExp): string {
  if (pattern.test(text)) return text
  throw linkFault(
    'link.address_invalid',
    `"${text.slice(0, 100)}" cannot stand in a tunnel's configuration`,
  )
}
