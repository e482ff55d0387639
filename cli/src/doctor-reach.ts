import { lookup } from 'node:dns/promises'
import { connect } from 'node:net'
import { codeOf, isFault, messageOf } from '@holdfast/base'
import { exchange, pinnedTls } from '@holdfast/link'
import { shownIdentity } from '@holdfast/link/api-client'
import type { Attempt } from './doctor-findings.ts'
import type { Endpoint } from './doctor-network.ts'

// Trying things for the doctor: what fails is an observation here, and no error.

/** Milliseconds for one connection: longer than a lost packet, shorter than a person's patience. */
const patience = 5_000

/** What came of something that may fail. */
export async function attempt<T>(work: () => Promise<T>, signal: AbortSignal): Promise<Attempt<T>> {
  try {
    return { ok: true, value: await work() }
  } catch (error) {
    signal.throwIfAborted()
    const code = isFault(error) ? error.code : (codeOf(error) ?? 'unexpected')
    return { ok: false, code, message: messageOf(error) }
  }
}

async function resolveName(host: string, signal: AbortSignal): Promise<Attempt<readonly string[]>> {
  return await attempt(async () => {
    const found = await lookup(host.replace(/^\[|\]$/g, ''), { all: true })
    return [...new Set(found.map(({ address }) => address))]
  }, signal)
}

/** Whether something accepts a connection there. */
export async function tryPort(
  host: string,
  port: number,
  signal: AbortSignal,
): Promise<Attempt<true>> {
  return await attempt(
    () =>
      new Promise<true>((resolve, reject) => {
        const socket = connect({ host: host.replace(/^\[|\]$/g, ''), port, timeout: patience })
        const stop = () => socket.destroy(new Error('stopped'))
        signal.addEventListener('abort', stop, { once: true })
        socket.once('close', () => signal.removeEventListener('abort', stop))
        socket.once('connect', () => {
          socket.destroy()
          resolve(true)
        })
        socket.once('timeout', () => {
          socket.destroy(
            Object.assign(new Error(`no answer in ${patience} ms`), { code: 'ETIMEDOUT' }),
          )
        })
        socket.once('error', reject)
      }),
    signal,
  )
}

/** Whether the enrolment port of a new machine answers there; nothing is told to it. */
export async function tryEnrolment(
  host: string,
  port: number,
  signal: AbortSignal,
): Promise<Attempt<true>> {
  return await attempt(async () => {
    const url = `http://${host}:${port}/`
    const { body } = await exchange(url, { method: 'GET', timeout: patience, signal })
    // Asked without a key it refuses, in words of its own.
    if (/"code":"link\./.test(body)) return true as const
    throw new Error('something else answers')
  }, signal)
}

export interface EndpointOptions {
  what: string
  starts: string
  pin?: string
}

/** A place from its name to its clock, as far as each step makes the next one possible. */
export async function lookAt(
  url: string,
  { what, starts, pin }: EndpointOptions,
  signal: AbortSignal,
): Promise<Endpoint> {
  const { hostname: host, port: stated } = new URL(url)
  const port = Number(stated === '' ? 443 : stated)
  const addresses = await resolveName(host, signal)
  const seen: Endpoint = {
    host,
    port,
    what,
    starts,
    addresses,
    ...(pin === undefined ? {} : { pin }),
  }
  if (!addresses.ok) return seen
  const tcp = await tryPort(host, port, signal)
  if (!tcp.ok) return { ...seen, tcp }
  const shown = await attempt(() => shownIdentity(url, signal), signal)
  if (!shown.ok) return { ...seen, tcp, shown }
  const skew = await clockSkew(url, shown.value, signal)
  return { ...seen, tcp, shown, ...(skew === undefined ? {} : { skew }) }
}

/** Its clock minus ours in milliseconds, from the date of an answer; undefined when it says none. */
async function clockSkew(
  url: string,
  identity: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  const tls = pinnedTls(identity)
  try {
    const { headers } = await exchange(`${url}/livez`, {
      method: 'GET',
      tls,
      timeout: patience,
      signal,
    })
    const then = Date.parse(headers.date ?? '')
    return Number.isNaN(then) ? undefined : then - Date.now()
  } catch {
    signal.throwIfAborted()
    return undefined // the layers above say what does not answer
  } finally {
    tls.destroy()
  }
}
