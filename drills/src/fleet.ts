import type { KeyObject } from 'node:crypto'
import type { Fault } from '@holdfast/base'
import type { Pins, Policy } from '@holdfast/seal'

// What a local fleet is, for the drills and for `holdfast up`. All of it lies in one directory:
//   servers/N/keys/      the key directory of server N (0-based), served by its own process
//   holders/NAME.key     a holder's PRIVATE key, PEM, mode 0600, and NAME.pub beside it. Real
//                        holders keep theirs elsewhere; here they are on this disk so that one
//                        person can play all of them.
//   vault.img            the LUKS2 volume, a sparse file
//   state/               what `holdfast vault --state` remembers of it, sealed header backups included

/**
 * How a key server is run. `args` are followed by `--directory DIR --port PORT --audit FILE --log LEVEL`,
 * and where they apply `--admin SOCKET` and `--init CURVE`. It must print one line of JSON with `port`
 * and `adminSocket` when it listens, and end on SIGTERM: `keyserver/src/main.ts` does.
 */
export interface Command {
  program: string
  args: readonly string[]
}

export interface LocalFleetOptions {
  /** Made when absent (mode 0700); must be empty otherwise. */
  directory: string
  /** Key servers, default 3. */
  servers?: number
  /** How many key servers open the volume, default 2. */
  threshold?: number
  /** Recovery holders, default 3. */
  holders?: number
  /** How many holders open the volume together, default 2. */
  holdersNeeded?: number
  /** Runs `holdfast keyserver` or the key server's own main file. */
  command: Command
  /** Size of the volume in bytes; the file is sparse. Default 64 MiB. */
  volumeSize?: number
  onProgress?: (progress: FleetProgress) => void
}

/** One step of starting the fleet. `done` of `total` steps are behind it. */
export interface FleetProgress {
  step: string
  done: number
  total: number
}

/** A key server in its own process. Its address stays the same when it is started again. */
export interface FleetServer extends AsyncDisposable {
  /** `server-1`, `server-2`, ... */
  readonly name: string
  readonly url: string
  readonly directory: string
  /** The administration socket. */
  readonly socket: string
  /** The process now; undefined while it is not running. */
  readonly pid: number | undefined
  /** Starts it again on the same address; nothing when it runs. */
  start(): Promise<void>
  /** Asks it to end (SIGTERM) and waits for that. */
  stop(): Promise<void>
  /** Ends it at once (SIGKILL), as a power cut does. */
  kill(): Promise<void>
}

export interface FleetHolder {
  readonly name: string
  readonly publicKey: KeyObject
  readonly publicKeyPath: string
  /** PEM (PKCS#8), mode 0600. */
  readonly privateKeyPath: string
}

export interface FleetVolume {
  readonly device: string
  readonly stateDirectory: string
  readonly automatic: Policy
  readonly recovery: Policy
}

/** One pin of one way in, as the last rehearsal saw it. */
export interface PinStatus {
  /** `automatic` or `recovery`. */
  way: 'automatic' | 'recovery'
  keyslot: number | undefined
  /** The pin's name, `tang` or `person`. */
  pin: string
  /** The server's address or the holder's name. */
  label: string
  state: 'proven' | 'failed' | 'not_tried'
  /** The last time it was proven, milliseconds since 1970. */
  lastProof: number | undefined
  fault: Fault | undefined
  /** Why it failed, when no fault says so. */
  problem?: string
}

/** One way in: what it needs and what it has. */
export interface WayStatus {
  way: 'automatic' | 'recovery'
  keyslot: number | undefined
  state: 'proven' | 'failed' | 'not_tried'
  threshold: number
  of: number
  /** How many more pins than needed are proven; negative when it does not open. */
  margin: number
  lastProof: number | undefined
  fault: Fault | undefined
  /** Why it failed although its pins opened. */
  problem?: string
}

export interface FleetRehearsal {
  /** Milliseconds since 1970. */
  at: number
  ways: readonly WayStatus[]
  pins: readonly PinStatus[]
}

export interface FleetStatus {
  servers: readonly { name: string; url: string; pid: number | undefined; running: boolean }[]
  volume: { device: string; header: 'readable' | 'unreadable' }
}

export interface LocalFleet extends AsyncDisposable {
  readonly directory: string
  readonly servers: readonly FleetServer[]
  readonly holders: readonly FleetHolder[]
  readonly volume: FleetVolume
  /** Pins with every holder's key at hand. */
  readonly pins: Pins
  status(): Promise<FleetStatus>
  /** Exercises every pin of every way in; reveals nothing, changes nothing but the proofs' times. */
  rehearse(signal?: AbortSignal): Promise<FleetRehearsal>
}
