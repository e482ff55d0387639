/** Compiles the P-521 core: assembly/*.ts on top of field arithmetic written by this folder. */

import { readFile } from 'node:fs/promises'
import asc from 'assemblyscript/asc'
import { constantTable } from './limbs.ts'
import { linearFunctions } from './linear.ts'
import { productFunctions } from './products.ts'

const ASSEMBLY = ['p521.ts', 'point.ts', 'element.ts']

/** The committed file that holds the compiled core. */
export const P521_MODULE_PATH = new URL('../generated/p521-wasm.ts', import.meta.url)

/**
 * Not -O3: Binaryen then moves expressions to where V8 keeps too many vectors alive and spills
 * them, which costs a third of the speed.
 */
const OPTIONS = ['-O1', '--runtime', 'stub', '--noAssert', '--enable', 'simd']

/** The emitted AssemblyScript that the files of assembly/ import as './field'. */
export function fieldSource(): string {
  return `${constantTable()}\n${productFunctions()}\n${linearFunctions()}`
}

/**
 * Compiles the core to WebAssembly, in memory.
 * @throws Error with the compiler's own messages when it refuses the source
 */
export async function compileP521(): Promise<Uint8Array<ArrayBuffer>> {
  const sources = new Map([['field.ts', fieldSource()]])
  for (const name of ASSEMBLY) {
    sources.set(name, await readFile(new URL(`../assembly/${name}`, import.meta.url), 'utf8'))
  }
  let binary = new Uint8Array()
  const { error, stderr } = await asc.main(
    ['p521.ts', '--outFile', 'p521.wasm', '--use', 'abort=', ...OPTIONS],
    {
      readFile: (name) => sources.get(name) ?? null,
      writeFile: (name, contents) => {
        if (name === 'p521.wasm' && typeof contents !== 'string') binary = Uint8Array.from(contents)
      },
      listFiles: () => [],
    },
  )
  if (error) throw new Error(`the AssemblyScript compiler refused the core: ${stderr.toString()}`)
  return binary
}

/** The text of generated/p521-wasm.ts: the compiled core in base64, so that a bundler needs no loader. */
export async function buildP521Module(): Promise<string> {
  const binary = Buffer.from(await compileP521())
  return [
    '// Written by crypto/build/main.ts from crypto/build and crypto/assembly; do not edit.',
    '',
    '/** The P-521 core, WebAssembly in base64. */',
    'export const P521_WASM =',
    `  '${binary.toString('base64')}'`,
    '',
  ].join('\n')
}
