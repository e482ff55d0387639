// Inside the virtual machine: everything that the fleet outside calls 127.0.0.1 is reached there, too,
// as it would be by any other machine's address. Says on the console which boot this is, and by whom.

import { spawnSync } from 'node:child_process'
import { readFileSync, readlinkSync } from 'node:fs'
import { connect, createServer } from 'node:net'

const outside = '10.0.2.2'
const ports = JSON.parse(readFileSync('/guest/ports.json', 'utf8'))
for (const port of ports) {
  const server = createServer((near) => {
    const far = connect(port, outside)
    near.pipe(far).pipe(near)
    near.on('error', () => far.destroy())
    far.on('error', () => near.destroy())
  })
  server.listen(port, '127.0.0.1')
}
const { stdout } = spawnSync('systemctl', ['--version'], { encoding: 'utf8' })
const boot = {
  id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
  first: readlinkSync('/proc/1/exe'),
  version: stdout.split('\n')[0],
}
process.stdout.write(`\nBOOT ${JSON.stringify(boot)}\n`)
