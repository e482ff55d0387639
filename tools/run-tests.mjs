// Runs the checks and the tests. Plain JavaScript on the pinned Node.
//
//   npm test                      everything but the long lanes
//   npm test -- --lane unit       one lane: check, unit, drills, vm
//   npm test -- vault             only test files whose path contains "vault"
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const args = process.argv.slice(2)
const at = args.indexOf('--lane')
const lane = at === -1 ? undefined : args[at + 1]
const words = args.filter(
  (word, index) => !word.startsWith('--') && (at === -1 || index !== at + 1),
)

const all = globSync('{*/src/**/*,tools/*}.test.ts', {
  cwd: root,
  exclude: (name) => name === 'node_modules',
}).sort()
const drills = all.filter((file) => file.startsWith('drills/'))
const lanes = {
  check: [],
  unit: all.filter((file) => !drills.includes(file)),
  drills,
  vm: globSync('test/src/**/*.vm.ts', { cwd: root }).sort(),
}

function step(program, argv) {
  const { status } = spawnSync(program, argv, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

if (lane !== undefined && !(lane in lanes)) {
  process.stderr.write(
    `error: there is no lane "${lane}"\nhint: one of ${Object.keys(lanes).join(', ')}\n`,
  )
  process.exit(2)
}

if ((lane === undefined && words.length === 0) || lane === 'check') {
  step('tsc', ['-p', '.'])
  step('biome', ['check', '--error-on-warnings'])
}

const chosen = lane === undefined ? all : lanes[lane]
const files = chosen.filter(
  (file) => words.length === 0 || words.some((word) => file.includes(word)),
)
if (lane === 'check') process.exit(0)
if (files.length === 0) {
  process.stderr.write(`error: no test file matches ${words.join(' ')}\n`)
  process.exit(2)
}
const limit = lane === 'vm' ? 1_800_000 : 600_000
step('node', ['--test', '--test-concurrency=2', `--test-timeout=${limit}`, ...files])
