import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, run, Secret } from '@holdfast/base'
import { readRequestFile, removeOaep } from '@holdfast/coordinator'
import { keyRoutes } from '@holdfast/protocol'
import { answer, answerFile, fetchRequest, type HolderKey, handIn } from './ceremony-holder.ts'
import { begin, isNow, setCoordinator } from './ceremony-scene.ts'
import type { Drill } from './drill.ts'

const module = '/usr/lib/softhsm/libsofthsm2.so'
/** Guards nothing: the token is made for the drill and removed with it. */
const tokenPin = '1234'
const modulusBits = 3072

/** A PKCS#11 token: SoftHSM, used through pkcs11-tool. The private key never leaves it. */
class Token implements HolderKey {
  readonly name: string
  readonly #directory: string

  private constructor(directory: string, name: string) {
    this.#directory = directory
    this.name = name
  }

  static async make(directory: string, name: string): Promise<Token> {
    await ensureDirectory(join(directory, 'tokens'))
    const token = new Token(directory, name)
    const settings = `directories.tokendir = ${directory}/tokens\nobjectstore.backend = file\n`
    await writeFile(token.#path('softhsm.conf'), settings)
    const words = ['--init-token', '--free', '--label', name, '--pin', tokenPin, '--so-pin', '5678']
    await run('softhsm2-util', words, token.#options())
    const pair = ['--keypairgen', '--key-type', `rsa:${modulusBits}`, '--id', '01', '--label', name]
    await token.tool(...pair, '--usage-decrypt', '--usage-sign')
    return token
  }

  #path(file: string): string {
    return join(this.#directory, file)
  }

  #options() {
    const environment = { SOFTHSM2_CONF: this.#path('softhsm.conf'), TOKEN_PIN: tokenPin }
    return { cwd: this.#directory, environment }
  }

  async tool(...words: readonly string[]): Promise<void> {
    const login = ['--module', module, '--login', '--pin', 'env:TOKEN_PIN']
    await run('pkcs11-tool', [...login, ...words], this.#options())
  }

  async publicKey(): Promise<string> {
    await this.tool(
      '--read-object',
      '--type',
      'pubkey',
      '--id',
      '01',
      '--output-file',
      'public.der',
    )
    const words = ['pkey', '-pubin', '-inform', 'DER', '-in', 'public.der', '-out', 'public.pem']
    await run('openssl', words, this.#options())
    return await readFile(this.#path('public.pem'), 'utf8')
  }

  /** As PKCS#11 has it, which SoftHSM refuses for SHA-256. */
  async unwrapWithOaep(wrapped: Buffer): Promise<void> {
    await writeFile(this.#path('wrapped'), wrapped)
    const files = ['--input-file', 'wrapped', '--output-file', 'share']
    const oaep = ['-m', 'RSA-PKCS-OAEP', '--hash-algorithm', 'SHA256', '--mgf', 'MGF1-SHA256']
    await this.tool('--decrypt', '--id', '01', ...oaep, ...files)
  }

  /** Raw RSA in the token; the padding is taken off here. */
  async unwrap(wrapped: Buffer): Promise<Secret> {
    await writeFile(this.#path('wrapped'), wrapped)
    const files = ['--input-file', 'wrapped', '--output-file', 'block']
    await this.tool('--decrypt', '--id', '01', '-m', 'RSA-X-509', ...files)
    using block = Secret.take(await readFile(this.#path('block')))
    return removeOaep(block, modulusBits / 8)
  }

  async sign(statement: Buffer): Promise<Buffer> {
    await writeFile(this.#path('statement'), statement)
    const files = ['--input-file', 'statement', '--output-file', 'signature']
    await this.tool('--sign', '--id', '01', '-m', 'SHA256-RSA-PKCS', ...files)
    return await readFile(this.#path('signature'))
  }
}

export const holderToken: Drill = {
  name: 'holder-token',
  title: 'A holder whose key never leaves a PKCS#11 token',
  summary:
    'A key made in SoftHSM, which cannot do RSA-OAEP with SHA-256: the token decrypts without padding and signs, the padding is taken off outside, and the coordinator is recovered.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const token = await Token.make(join(directory, 'token'), 'hanna')
    const others = { hanna: await token.publicKey() }
    const { coordinator, owner, keys } = await setCoordinator(stage, { others })
    const [, bob] = keys
    if (bob === undefined) throw new Error('there are three holders beside hanna')
    await owner.call(keyRoutes.seal)
    const { id } = await begin(owner, 'recovery')
    await answer(owner, id, bob)
    const request = await fetchRequest(owner, id, token.name)
    const { wrapped } = readRequestFile(request, coordinator.identity)
    await timeline.refuses('the token refuses OAEP with SHA-256', ['base.program_failed'], () =>
      token.unwrapWithOaep(Buffer.from(wrapped, 'base64url')),
    )
    const after = await handIn(owner, id, await answerFile(token, request, coordinator.identity))
    const names = after.answered.map(({ holder }) => holder)
    timeline.proves('raw RSA in the token and its signature are enough', after.state === 'done', {
      answered: names,
    })
    await isNow(stage, 'the coordinator runs', coordinator, { state: 'running' })
  },
}
