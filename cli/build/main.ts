import { fileURLToPath } from 'node:url'
import { bundle } from './bundle.ts'

// `npm run build -w cli`: makes cli/dist, which cli/bin/holdfast runs.

await bundle(fileURLToPath(new URL('../dist', import.meta.url)))
