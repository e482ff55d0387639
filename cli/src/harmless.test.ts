import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type JsonObject, run, Secret } from '@holdfast/base'
import { bareJwk, encryptJwe, generateEcKey } from '@holdfast/crypto'
import fc from 'fast-check'
import { harmless } from './harmless.ts'

const hostile = '\u001b]0;owned\u0007\u001b[2J\u009b1A\u202e\r'
const launcher = join(import.meta.dirname, '../bin/holdfast')

test('only our own colours and line ends are left', () => {
  const text = fc.string({ unit: 'binary' })
  fc.assert(
    fc.property(text, text, (a, b) => {
      const shown = harmless(`${a}\u001b[31mred\u001b[39m\n\t${b}`)
      assert.ok(shown.includes('\u001b[31mred\u001b[39m\n\t'))
      const rest = shown.split('\u001b[31mred\u001b[39m').join('')
      assert.doesNotMatch(rest, /[^\P{Cc}\n\t]|\p{Cf}/u)
    }),
  )
})

test('what a hostile disk says does nothing to the terminal', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-harmless-'))
  try {
    const jwk = bareJwk(generateEcKey('P-256'))
    const key = createPublicKey({ key: { ...jwk }, format: 'jwk' })
    const tang = { adv: { keys: [] }, url: `ftp://${hostile}` }
    const forms: JsonObject[] = [
      { pin: `x${hostile}` },
      { pin: 'person', person: { name: `bob${hostile}`, jwk } },
      { pin: 'tang', tang },
    ]
    for (const clevis of forms) {
      using nothing = Secret.copy('x')
      const header = { alg: 'ECDH-ES', clevis, kid: `k${hostile}` }
      const file = join(folder, 'sealed.jwe')
      await writeFile(file, await encryptJwe(header, key, nothing))
      for (const command of ['inspect', 'rehearse', 'open']) {
        const words = [command, '--in', file, '--unattended']
        const accept = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        const { stdout, stderr } = await run(launcher, words, { accept })
        const shown = `${stdout.toString('utf8')}${stderr}`
        assert.notEqual(shown, '')
        assert.doesNotMatch(shown, /[^\P{Cc}\n\t]|\p{Cf}/u, `${command} ${JSON.stringify(shown)}`)
      }
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})
