#!/usr/bin/env node
// Plain JavaScript, because an old Node must be able to read it. Starts holdfast on the pinned Node:
// from the bundle when that is newer than every source, otherwise from the sources themselves.
import { existsSync, readdirSync, statSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'

const checkout = new URL('../../', import.meta.url)
const bundle = new URL('cli/dist/holdfast.mjs', checkout)
const source = new URL('cli/src/main.ts', checkout)
const parts = ['base', 'crypto', 'seal', 'keyserver', 'vault', 'drills', 'cli']

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

async function startHere() {
  const current = bundleIsCurrent()
  // Beside the code it caches, so with the same owner; a read-only checkout just goes without.
  module.enableCompileCache?.(fileURLToPath(new URL('cli/dist/.compile-cache/', checkout)))
  await import(current ? bundle : source)
}

async function startOnPinnedNode() {
  const packages = [`node-linux-${process.arch}/bin/node`, '.bin/node']
  const pinned = packages
    .map((name) => fileURLToPath(new URL(`node_modules/${name}`, checkout)))
    .find((path) => existsSync(path))
  if (pinned === undefined) {
    console.error(
      `error: holdfast runs on Node 24, this is ${process.versions.node} and the pinned one is not installed\n` +
        `hint: (cd ${fileURLToPath(checkout)} && npm ci --include=optional)`,
    )
    process.exitCode = 7
    return
  }
  const { spawn } = await import('node:child_process')
  const own = fileURLToPath(import.meta.url)
  const child = spawn(pinned, [own, ...process.argv.slice(2)], { stdio: 'inherit' })
  // The terminal sends Ctrl-C to both; a signal sent to this process alone is handed on.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => child.kill(name))
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? (signal === 'SIGINT' ? 130 : 143)
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.removeAllListeners(name)
  })
}

if (Number(process.versions.node.split('.')[0]) < 24) await startOnPinnedNode()
else await startHere()
