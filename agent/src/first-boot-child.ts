import { systemClock } from '@holdfast/base'
import { firstBoot } from './first-boot.ts'
import { NodeFirstBoot } from './first-boot-steps.ts'
import { openNodeDirectory } from './node-directory.ts'

// For the crash test: the first boot of a node directory, with a directory in place of its vault.

const [directory = '', vault = '', renew = ''] = process.argv.slice(2)
await using opened = await openNodeDirectory(directory)
const node = new NodeFirstBoot({
  directory,
  keys: opened.keys,
  keeping: opened.keeping,
  clock: systemClock,
  onTouch: (touch, path) => {
    throw new Error(`${path} ${touch}`)
  },
})
await node.canaries.look(vault)
const order =
  renew === '' ? { renew: [] } : { renew: ['service-tokens', 'canaries'] as const, command: renew }
const outcomes = await firstBoot(directory, node.steps(vault, ['web', 'db']), order)
await node.canaries.look(vault)
process.stdout.write(`${JSON.stringify(outcomes)}\n`)
