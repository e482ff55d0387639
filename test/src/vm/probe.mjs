// A service inside the virtual machine: tries what a service must not be able to do, and writes down
// what came of it in its only writable directory.
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'

function attempt(act) {
  try {
    act()
    return 'done'
  } catch (error) {
    return error.code ?? String(error)
  }
}

function claims() {
  const token = readFileSync(`${process.env.CREDENTIALS_DIRECTORY}/token`, 'utf8')
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString('utf8'))
}

const status = readFileSync('/proc/self/status', 'utf8')
const field = (name) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]
const facts = {
  words: process.argv.slice(2),
  cwd: process.cwd(),
  uid: process.getuid(),
  hostname: hostname(),
  capabilities: field('CapEff'),
  seccomp: field('Seccomp'),
  noNewPrivileges: field('NoNewPrivs'),
  mnt: readlinkSync('/proc/self/ns/mnt'),
  uts: readlinkSync('/proc/self/ns/uts'),
  etc: attempt(() => writeFileSync('/etc/mark', '')),
  usr: attempt(() => writeFileSync('/usr/mark', '')),
  run: attempt(() => writeFileSync('/run/mark', '')),
  vault: attempt(() => readdirSync('/var/lib/holdfast-vault')),
  others: attempt(() => readdirSync('/var/lib/private/holdfast-services/crasher')),
  claims: claims(),
  tmp: readdirSync('/tmp').length,
  disk: attempt(() => readFileSync('/dev/vda')),
  processes: readdirSync('/proc').filter((name) => /^\d+$/.test(name)).length,
}
writeFileSync('facts.json', JSON.stringify(facts))
console.log('the probe has written its facts')
setInterval(() => undefined, 60_000)
