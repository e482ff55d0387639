export {
  type Advertisement,
  isSignedBy,
  mayDo,
  signAdvertisement,
  signingAlgorithm,
  verifyAdvertisement,
} from './advertisement.ts'
export {
  addPoints,
  type Curve,
  type CurveName,
  curveNames,
  curveOf,
  type EncodedPoint,
  isCurveName,
  isOnCurve,
  negate,
  type Point,
  toBytes,
  toNumber,
} from './curve.ts'
export { type Blinded, blind, type ExchangeKey, exchangeKey, generateEcKey } from './exchange.ts'
export { cryptoFault } from './faults.ts'
export {
  compactJwe,
  decryptJwe,
  deriveContentKey,
  type EncryptionKey,
  encryptJwe,
  type FlattenedJwe,
  flattenJwe,
  type Jwe,
  jweLimit,
  parseJwe,
} from './jwe.ts'
export {
  type AnyJwk,
  bareJwk,
  type EcPrivateJwk,
  type EcPublicJwk,
  encodedPointOf,
  jwkOf,
  parseEcPublicJwk,
  pointOf,
  thumbprint,
  thumbprintHashes,
  thumbprints,
} from './jwk.ts'
export { isOnP521, type P521Multiplier, type P521Point, p521Multiplier } from './p521.ts'
export { combineShares, type Split, shareLength, splitNewSecret } from './shares.ts'
