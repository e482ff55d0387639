// Runs inside the virtual machine, on the guest's own Node: a vault that is really mapped by
// device-mapper, mounted, closed, opened again, waited for, and locked by panic 1. Prints one JSON
// line for each step; the test outside reads them from the console.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'

const mapping = '/dev/mapper/data'

function report(step, facts) {
  process.stdout.write(`\nSTEP ${JSON.stringify({ step, ...facts })}\n`)
}

function sh(program, ...args) {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${status} ${stderr}`)
  return stdout
}

function holdfast(...args) {
  const { status, stdout, stderr } = spawnSync(
    'node',
    ['/holdfast/holdfast.mjs', ...args, '--json', '--unattended'],
    { encoding: 'utf8' },
  )
  let answer = {}
  try {
    answer = JSON.parse(stdout)
  } catch {
    answer = { text: stdout, stderr }
  }
  return { status, answer }
}

async function serve() {
  const args = [
    'keyserver',
    'serve',
    '--directory',
    '/run/keys',
    '--init',
    'P-256',
    '--port',
    '7500',
  ]
  const server = spawn('node', ['/holdfast/holdfast.mjs', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => server.stdout.once('data', resolve))
  return server
}

async function stopped(server) {
  const ended = new Promise((resolve) => server.once('exit', resolve))
  server.kill('SIGTERM')
  await ended
}

async function main() {
  let server = await serve()
  const { answer: keys } = holdfast('keyserver', 'keys', '--directory', '/run/keys')
  const signing = keys.keys.find((key) => key.use === 'signing')
  writeFileSync(
    '/run/automatic.json',
    JSON.stringify({
      pin: 'tang',
      config: { url: 'http://127.0.0.1:7500', thp: signing.kid },
    }),
  )
  writeFileSync('/run/owner', 'a passphrase of the owner\n')
  const created = holdfast(
    'vault',
    'create',
    '/dev/vda',
    '--automatic',
    '/run/automatic.json',
    '--owner-passphrase-file',
    '/run/owner',
    '--without-backup',
  )
  report('create', created)
  const opened = holdfast('vault', 'unlock', '/dev/vda', '--name', 'data')
  report('unlock', { ...opened, mapped: existsSync(mapping) })
  sh('mkfs.ext4', '-q', mapping)
  mkdirSync('/run/mnt', { recursive: true })
  sh('mount', '-t', 'ext4', mapping, '/run/mnt')
  writeFileSync('/run/mnt/proof', 'it was here')
  sh('umount', '/run/mnt')
  report('lock', { ...panic('1'), mapped: existsSync(mapping) })
  await stopped(server)
  report('refused', {
    ...holdfast('vault', 'unlock', '/dev/vda', '--name', 'data', '--timeout', '5'),
    mapped: existsSync(mapping),
  })
  const waiting = spawn(
    'node',
    [
      '/holdfast/holdfast.mjs',
      'vault',
      'unlock',
      '/dev/vda',
      '--name',
      'data',
      '--retry',
      '--unattended',
    ],
    { stdio: 'ignore' },
  )
  const ended = new Promise((resolve) => waiting.once('exit', resolve))
  await new Promise((resolve) => setTimeout(resolve, 4000))
  const before = existsSync(mapping)
  server = await serve()
  report('waited', { status: await ended, before, mapped: existsSync(mapping) })
  sh('mount', '-t', 'ext4', mapping, '/run/mnt')
  report('data', { text: readFileSync('/run/mnt/proof', 'utf8') })
  sh('umount', '/run/mnt')
  report('destroyed', { ...panic('3'), mapped: existsSync(mapping) })
  report(
    'gone',
    holdfast('vault', 'unlock', '/dev/vda', '--name', 'data', '--passphrase-file', '/run/owner'),
  )
  await stopped(server)
}

function panic(level) {
  const prepared = holdfast('vault', 'panic', '/dev/vda', '--level', level)
  const { status, answer } = holdfast(
    'vault',
    'panic',
    '/dev/vda',
    '--level',
    level,
    '--code',
    String(prepared.answer.code),
  )
  return { prepared: prepared.status, status, answer }
}

try {
  await main()
} catch (error) {
  report('failed', { text: String(error?.stack ?? error) })
}
process.exit() // a server may still run
