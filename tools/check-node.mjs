// Plain JavaScript, because an old Node must be able to read it: says whether this is the pinned Node.
import { readFileSync } from 'node:fs'

const pinned = readFileSync(new URL('../.node-version', import.meta.url), 'utf8').trim()
const [major] = process.versions.node.split('.')
const [wanted] = pinned.split('.')

if (Number(major) < Number(wanted)) {
  console.error(
    `error: Holdfast runs on Node ${pinned}, this is ${process.versions.node}\n` +
      'hint: the pinned Node comes with the npm packages: npm ci --include=optional, then npm start',
  )
  process.exitCode = 1
}
