/** Rebuilds crypto/generated/p521-wasm.ts: `node crypto/build/main.ts`, or `npm run build -w crypto`. */

import { writeFile } from 'node:fs/promises'
import { buildP521Module, P521_MODULE_PATH } from './p521.ts'

await writeFile(P521_MODULE_PATH, await buildP521Module())
