import { parseJson } from '@holdfast/base'
import {
  bareJwk,
  type CurveName,
  type EcPrivateJwk,
  type EcPublicJwk,
  exchangeKey,
  generateEcKey,
  jwkOf,
  type Point,
  parseEcPublicJwk,
  pointOf,
  signAdvertisement,
  thumbprint,
} from '@holdfast/crypto'
import { type HostileServer, type Misbehaviour, reply, startHostile } from './hostile-server.ts'

/** Keys of a key server that knows how to answer rightly, so that it can answer wrongly on purpose. */
export interface Keys {
  readonly signing: EcPrivateJwk
  readonly exchange: EcPrivateJwk
  readonly thp: string
  readonly kid: string
  /** Signed by its signing key, or by others on request. */
  advertisement(signers?: readonly EcPrivateJwk[]): Promise<string>
  /** s * X for the point in a request's body. */
  answer(body: string): Point
}

export function makeKeys(crv: CurveName = 'P-256'): Keys {
  const [signing, exchange] = [generateEcKey(crv), generateEcKey(crv)]
  const verifying = { ...bareJwk(signing), alg: 'ES', key_ops: ['verify'] }
  const deriving = { ...bareJwk(exchange), alg: 'ECMR', key_ops: ['deriveKey'] }
  return {
    signing,
    exchange,
    thp: thumbprint(signing),
    kid: thumbprint(exchange),
    advertisement: (signers = [signing]) => signAdvertisement([verifying, deriving], signers),
    answer: (body) => {
      using key = exchangeKey(exchange)
      return key.multiply(pointOf(parseEcPublicJwk(parseJson(body, 'the request'), 'the request')))
    },
  }
}

/** What a server with these keys should do. */
export function honest(keys: Keys): Misbehaviour {
  return async ({ method, body }, socket) => {
    const text =
      method === 'GET'
        ? await keys.advertisement()
        : JSON.stringify(jwkOf(keys.answer(body), keys.exchange.crv))
    socket.write(reply(200, text))
  }
}

/** Advertises rightly, and answers recoveries with whatever JWK is made of the right answer. */
export function lying(keys: Keys, lie: (right: Point) => EcPublicJwk | object): Misbehaviour {
  return async ({ method, body }, socket) => {
    const text =
      method === 'GET' ? await keys.advertisement() : JSON.stringify(lie(keys.answer(body)))
    socket.write(reply(200, text))
  }
}

/** Advertises rightly, and does anything at all when asked for a recovery. */
export function spoilt(keys: Keys, recovery: Misbehaviour): Misbehaviour {
  return async (request, socket) => {
    if (request.method === 'GET') socket.write(reply(200, await keys.advertisement()))
    else await recovery(request, socket)
  }
}

export async function startHonest(keys: Keys): Promise<HostileServer> {
  return await startHostile(honest(keys))
}
