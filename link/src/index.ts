export {
  type AddressPool,
  addressAt,
  firstNodeHost,
  hostOf,
  hostsOf,
  lowestFree,
  parsePool,
} from './address-pool.ts'
export { type Backoff, nextWait } from './backoff.ts'
export {
  type Authority,
  alwaysValid,
  certificateRequest,
  issue,
  selfSigned,
  type Validity,
} from './certificate.ts'
export { type CloseCode, type Closed, type CloseReason, closeReasons } from './close-reasons.ts'
export { boundUnsecured, type CrowdOptions } from './crowd.ts'
export { type CardedNode, enrolmentUrl, fetchCard } from './enrolment-client.ts'
export {
  type EnrolmentPort,
  type EnrolmentPortOptions,
  enrolmentPort,
  openEnrolmentPort,
} from './enrolment-port.ts'
export { type ExchangeOptions, exchange, type Reply } from './exchange.ts'
export { linkFault } from './faults.ts'
export { keyId } from './key-id.ts'
export { type Listener, openListener, readBody } from './listener.ts'
export { formatCode, makeCode, parseCode } from './sealed-channel.ts'
export {
  type AgentSession,
  connectSession,
  type Hello,
  type Instruction,
  type SessionOptions,
  type SessionState,
  type Welcome,
} from './session.ts'
export {
  type AcceptOptions,
  type Acceptor,
  acceptSessions,
  type CoordinatorSession,
  type Report,
  SessionRefused,
} from './session-server.ts'
export * from './signing.ts'
export { sourceOf } from './source-of.ts'
export { nodeOf, type OwnCertificate, type PinnedTlsOptions, pinnedTls, serverTls } from './tls.ts'
export {
  type NetworkKind,
  type NoTunnel,
  startTunnel,
  type Tunnel,
  type TunnelOptions,
  type TunnelPeerStatus,
} from './tunnel.ts'
export * from './wireguard.ts'
