import { createPublicKey, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { ensureDirectory, isFault, type Secret, writeDurable } from '@holdfast/base'
import { thumbprint } from '@holdfast/crypto'
import type { RecoveryWay } from '@holdfast/protocol'
import {
  createPins,
  type HolderAnswer,
  type HolderRequest,
  type Holders,
  holderRequests,
  open,
  sealFault,
  useOf,
} from '@holdfast/seal'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { holdersFrom, readPrivateKey } from './holders.ts'
import type { Input } from './input.ts'

// The holders' way into a node's vault. A holder's key is recognised by its thumbprint, so nobody has
// to say whose it is.

/**
 * Answers with the keys of --key, found by thumbprint, and the shares of --share, found by name.
 * @throws Fault cli.holder_key_unknown for a key that no holder of these ways has
 */
export async function holdersGiven(
  name: string,
  recovery: readonly RecoveryWay[],
  input: Input,
  context: Context,
): Promise<Holders> {
  const asked = recovery.flatMap(({ sealed }) => holderRequests(sealed))
  const keys = new Map<string, KeyObject>()
  for (const file of input.texts('key')) {
    const key = await readPrivateKey(`the holder in ${file}`, file, input, context)
    const kid = kidOf(key)
    requireAsked(name, asked, file, kid)
    keys.set(kid, key)
  }
  const byName = await holdersFrom(input, context)
  return {
    answer: async (request: HolderRequest, signal): Promise<HolderAnswer | undefined> => {
      const privateKey = keys.get(request.kid)
      return privateKey === undefined ? await byName.answer(request, signal) : { privateKey }
    },
  }
}

/** Without this, only the holders would be blamed: none of them has answered. */
function requireAsked(
  name: string,
  asked: readonly HolderRequest[],
  file: string,
  kid: string,
): void {
  if (asked.length === 0 || asked.some((each) => each.kid === kid)) return
  const holders = [...new Set(asked.map((each) => each.name))].join(', ')
  throw cliFault(
    'cli.holder_key_unknown',
    `the key in ${file} is of none of the holders of ${name}, who are ${holders}`,
    {
      hint: `its thumbprint is ${kid}; theirs: holdfast node unlock ${name} --export-shares DIR --json`,
    },
  )
}

function kidOf(key: KeyObject): string {
  const jwk = createPublicKey(key).export({ format: 'jwk' })
  return thumbprint({ ...jwk, kty: jwk.kty ?? '' })
}

/**
 * The ways that were made for this node, which is authenticated once they open. What a node shows is
 * public wherever it was taken from: without this a lying one would be given the secret of another
 * machine, or the coordinator's own.
 * @param former the id that the node had when its header was made: after panic 2 it has a new one
 * @throws Fault seal.use_foreign when the node shows ways, and none of them is its own
 */
export function madeFor(
  { name, node }: { name: string; node: string },
  recovery: readonly RecoveryWay[],
  former: string | undefined,
): RecoveryWay[] {
  const own = recovery.filter(({ sealed }) => {
    const use = useOf(sealed)
    return use?.purpose === 'vault' && (use.of === node || use.of === former)
  })
  const [first] = recovery
  if (own.length > 0 || first === undefined) return own
  const { purpose, of } = useOf(first.sealed) ?? {}
  const whose = purpose === 'vault' ? `was made for ${of}` : 'is no way into a vault of its own'
  throw sealFault('seal.use_foreign', `what ${name} (${node}) shows ${whose}`, {
    hint:
      purpose === 'vault'
        ? `only if ${name} was destroyed by panic 2 and ${of} was its id before: the same command with --made-for ${of}`
        : `its holders must open nothing for it: holdfast node freeze ${name}`,
  })
}

/**
 * The passphrase of the first holders' way that opens.
 * @throws Fault cli.recovery_absent, and what the way's policy says when too few holders are here
 */
export async function openRecovery(
  name: string,
  recovery: readonly RecoveryWay[],
  holders: Holders,
  signal: AbortSignal,
): Promise<Secret> {
  let problem: unknown = cliFault(
    'cli.recovery_absent',
    `the vault of ${name} has no holders' way`,
    {
      hint: 'somebody who knows a passphrase can type it: holdfast node unlock NAME',
    },
  )
  for (const { sealed } of recovery) {
    try {
      return await open(createPins({ holders }), sealed, { signal })
    } catch (error) {
      if (!isFault(error)) throw error
      problem = error
    }
  }
  throw problem
}

/** Writes what each holder's key unwraps, for openssl or an HSM; it is in the vault's header, public. */
export async function exportShares(
  name: string,
  recovery: readonly RecoveryWay[],
  folder: string,
): Promise<Outcome> {
  const shares = recovery.flatMap(({ sealed }) => holderRequests(sealed))
  const written: string[] = []
  await ensureDirectory(folder)
  for (const { name: holder, wrapped } of shares) {
    if (wrapped.length === 0) continue // P-256 and X25519 holders agree on a key, none is wrapped
    const file = join(folder, `${holder}.wrapped`)
    await writeDurable(file, wrapped)
    written.push(file)
  }
  const holders = shares.map(({ name: holder, kid, alg }) => ({ name: holder, kid, alg }))
  const next = `next: unwrap each with its holder's key, then holdfast node unlock ${name} --share NAME=FILE`
  return {
    json: { name, holders, written },
    text: [...written.map((file) => `wrote ${file}`), next].join('\n'),
  }
}
