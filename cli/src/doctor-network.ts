import { type Attempt, failed, type Judged, ok, type Rule, warning } from './doctor-findings.ts'

// The layers below everything: a name, a port, an identity, a clock. Pure.

/** A place in the network, as far as it was tried. */
export interface Endpoint {
  host: string
  port: number
  /** What listens there, for people. */
  what: string
  addresses: Attempt<readonly string[]>
  tcp?: Attempt<true>
  /** The digest of the key that answered. */
  shown?: Attempt<string>
  /** The digest that must answer; undefined when nobody has pinned it. */
  pin?: string
  /** Its clock minus ours, milliseconds. */
  skew?: number
  /** Typed on the machine that should listen. */
  starts: string
}

/** Milliseconds; a clock may differ so much before anything expires wrongly. */
const tolerableSkew = 120_000

export const networkRules: readonly Rule<Endpoint>[] = [
  { layer: 'name', judge: judgeName },
  { layer: 'port', judge: judgePort },
  { layer: 'identity', judge: judgeIdentity },
  { layer: 'clock', judge: judgeClock },
]

function judgeName({ host, addresses }: Endpoint): Judged {
  if (addresses.ok) {
    const found = addresses.value.join(', ')
    return ok(found === host ? `${host} is an address` : `${host} is ${found}`)
  }
  return failed(
    `${host} cannot be resolved (${addresses.code}): the name is wrong, or this machine has no name server`,
    `getent hosts ${host}`,
  )
}

function judgePort({ host, port, what, tcp, starts }: Endpoint): Judged | undefined {
  if (tcp === undefined) return undefined
  if (tcp.ok) return ok(`${what} answers on port ${port}`)
  const place = `${host}:${port}`
  if (tcp.code === 'ECONNREFUSED') {
    return failed(`nothing listens on ${place}: ${what} does not run there`, starts)
  }
  if (tcp.code === 'ETIMEDOUT') {
    return failed(
      `no answer from ${place}: a firewall in between drops it, at the provider or on the machine, or the machine is off; port ${port}/tcp must be open to this one`,
      `nc -vz -w 5 ${host} ${port}`,
    )
  }
  return failed(`${place} cannot be reached (${tcp.code}): ${tcp.message}`, `ip route get ${host}`)
}

function judgeIdentity({ host, shown, pin, what }: Endpoint): Judged | undefined {
  if (shown === undefined) return undefined
  if (!shown.ok) {
    return failed(
      `what listens on ${host} does not speak TLS 1.3 as ${what} does (${shown.code}): another program, or a proxy in between`,
    )
  }
  if (pin === undefined) {
    return warning(
      `it shows ${shown.value}, and nobody here has pinned it: compare it on another channel`,
    )
  }
  if (shown.value === pin) return ok(`it is the pinned one, ${pin}`)
  return failed(
    `it shows ${shown.value} and not the pinned ${pin}: another machine, somebody in between, or it was set up anew`,
  )
}

function judgeClock({ skew, what }: Endpoint): Judged | undefined {
  if (skew === undefined) return undefined
  const seconds = Math.round(skew / 1000)
  if (Math.abs(skew) <= tolerableSkew) return ok(`the clocks differ by ${Math.abs(seconds)} s`)
  return warning(
    `the clock of ${what} is ${Math.abs(seconds)} s ${seconds > 0 ? 'ahead of' : 'behind'} this one: invites and tokens expire at other times than people think; no unlock depends on it`,
    'timedatectl status',
  )
}
