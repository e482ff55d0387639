// Makes a fresh machine ready: npm packages with the pinned Node, Debian packages, the CLI bundle.
// Plain JavaScript, because it is the first thing that runs and an old Node must be able to.
//
//   node tools/setup.mjs run | test
//
// Nothing is installed twice: each step looks first. What it may not install, it names with the
// command to type, and fails.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const purpose = process.argv[2] ?? 'run'
const debian = JSON.parse(readFileSync(join(root, 'tools/debian-packages.json'), 'utf8'))
const marker = join(root, 'node_modules/.holdfast-lock')

function say(text) {
  process.stderr.write(`setup: ${text}\n`)
}

function fail(text, hint) {
  process.stderr.write(`error: ${text}\nhint: ${hint}\n`)
  process.exit(7)
}

function attempt(program, args, options = {}) {
  return spawnSync(program, args, { cwd: root, stdio: ['ignore', 2, 2], ...options })
}

/** npm packages: reinstalled when the lock file is not the one they were installed from. */
function npmPackages() {
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  if (existsSync(marker) && readFileSync(marker, 'utf8') === lock) return
  say('installing npm packages (npm ci)')
  const { status } = attempt('npm', [
    'ci',
    '--include=optional',
    '--loglevel=error',
    '--no-audit',
    '--no-fund',
  ])
  if (status !== 0)
    fail('npm ci failed', 'read its messages above, then run: npm ci --include=optional')
  writeFileSync(marker, lock)
}

function installed(name) {
  const { stdout } = spawnSync('dpkg-query', ['-s', name], { encoding: 'utf8' })
  return (stdout ?? '').includes('\nStatus: install ok installed')
}

/** The words that make a command run as root here, or nothing when that is not permitted. */
function asRoot() {
  if (process.getuid?.() === 0) return []
  return spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0
    ? ['sudo', '-n']
    : undefined
}

function debianPackages(names) {
  const missing = names.filter((name) => !installed(name))
  if (missing.length === 0) return
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...missing]
  const root = asRoot()
  if (root === undefined) {
    fail(`Debian packages are missing: ${missing.join(' ')}`, `type: sudo ${install.join(' ')}`)
  }
  say(`installing Debian packages: ${missing.join(' ')}`)
  const env = [
    'env',
    'DEBIAN_FRONTEND=noninteractive',
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  ]
  const apt = (args) => {
    const [program, ...rest] = [...root, ...env, 'apt-get', '-q', '-o', 'Dpkg::Use-Pty=0', ...args]
    return attempt(program, rest).status
  }
  // A fresh machine has no package lists; an old one has stale ones.
  if (apt(['update']) !== 0) say('apt-get update failed; trying with the lists that are here')
  if (apt(install.slice(1)) !== 0) {
    fail('apt-get could not install them', `type: sudo apt-get update && sudo ${install.join(' ')}`)
  }
  if (missing.includes('tang')) stopPackagedTang(root)
}

/** Debian starts tangd on port 80 when its package is installed; the tests start their own. */
function stopPackagedTang(root) {
  if (!existsSync('/run/systemd/system')) return
  const [program, ...args] = [...root, 'systemctl', 'disable', '--now', 'tangd.socket']
  attempt(program, args)
}

/** The command line as one file, so that it starts fast; it also runs without. */
function bundle() {
  const { status } = attempt('npm', ['run', '--silent', 'build', '-w', 'cli'])
  if (status !== 0) fail('the command line could not be bundled', 'run: npm run build -w cli')
}

if (!(purpose in debian))
  fail(`there is no set-up named ${purpose}`, `one of: ${Object.keys(debian).join(', ')}`)
npmPackages()
debianPackages(debian[purpose])
bundle()
