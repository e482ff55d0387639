// Plain JavaScript, because an old Node must be able to read it. Runs the bundle when that is newer
// than every source, otherwise the sources themselves. `holdfast` beside it picks the Node.
import { readdirSync, statSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'

const checkout = new URL('../../', import.meta.url)
const bundle = new URL('cli/dist/holdfast.mjs', checkout)
const source = new URL('cli/src/main.ts', checkout)
// Every workspace that the bundle may hold; the test beside it compares them with package.json.
const parts = [
  ...['base', 'crypto', 'seal', 'protocol', 'keyserver', 'vault'],
  ...['link', 'agent', 'coordinator', 'drills', 'cli'],
]

function modified(url) {
  return statSync(url, { throwIfNoEntry: false })?.mtimeMs
}

function bundleIsCurrent() {
  const built = modified(bundle)
  if (built === undefined) return false
  for (const part of parts) {
    const folder = new URL(`${part}/src/`, checkout)
    for (const name of readdirSync(folder)) {
      if (name.endsWith('.ts') && !name.endsWith('.test.ts')) {
        if ((modified(new URL(name, folder)) ?? 0) > built) return false
      }
    }
  }
  return true
}

if (Number(process.versions.node.split('.')[0]) < 24) {
  console.error(
    `error: holdfast runs on Node 24, this is ${process.versions.node}\n` +
      `hint: start ${fileURLToPath(new URL('holdfast', import.meta.url))}, which finds the pinned Node; ` +
      `if that is missing: (cd ${fileURLToPath(checkout)} && npm ci --include=optional)`,
  )
  process.exitCode = 7
} else {
  const current = bundleIsCurrent()
  // Beside the code it caches, so with the same owner; a read-only checkout just goes without.
  module.enableCompileCache(fileURLToPath(new URL('cli/dist/.compile-cache/', checkout)))
  await import(current ? bundle : source)
}
