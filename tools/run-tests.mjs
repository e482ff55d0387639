// Runs the checks and the tests. Plain JavaScript on the pinned Node.
//
//   npm test                      everything but the lane `long`
//   npm test -- --lane crash      one lane: check, unit, interop, crash, drills, vm, long
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

/** Which lane a test file belongs to. */
function laneOf(file) {
  // Whole coordinators and agents killed at every step, and a database that fails over: minutes each.
  if (/^coordinator\/src\/(crash|instances)|^agent\/src\/agent|^bench\/src\/reshare/.test(file))
    return 'long'
  if (file.startsWith('test/src/vm/')) return 'vm'
  if (file.startsWith('drills/')) return 'drills'
  if (/crash/.test(file)) return 'crash'
  return /^test\/|interop/.test(file) ? 'interop' : 'unit'
}

/** They kill an agent at some of its effects; in the lane `long`, where they run once more, at every one. */
const sparse = /^agent\/src\/(end|ways)-crash/

const isIn = (file, wanted) => laneOf(file) === wanted || (wanted === 'long' && sparse.test(file))

// The longest lanes first: the last file to start should not be the longest to run.
const lanes = ['check', 'long', 'crash', 'drills', 'vm', 'interop', 'unit']
const all = globSync('{*/src/**/*,tools/*}.test.ts', { cwd: root })
  .sort()
  .sort((a, b) => lanes.indexOf(laneOf(a)) - lanes.indexOf(laneOf(b)))

function step(program, argv, environment = {}) {
  const env = { ...process.env, ...environment }
  const { status } = spawnSync(program, argv, { cwd: root, stdio: 'inherit', env })
  if (status !== 0) process.exit(status ?? 1)
}

if (lane !== undefined && !lanes.includes(lane)) {
  process.stderr.write(`error: there is no lane "${lane}"\nhint: one of ${lanes.join(', ')}\n`)
  process.exit(2)
}

if ((lane === undefined && words.length === 0) || lane === 'check') {
  step('tsc', ['-p', '.'])
  step('biome', ['check', '--error-on-warnings'])
  if (lane === 'check') process.exit(0)
}

const files = all.filter(
  (file) =>
    (lane === undefined ? laneOf(file) !== 'long' || words.length > 0 : isIn(file, lane)) &&
    (words.length === 0 || words.some((word) => file.includes(word))),
)
if (files.length === 0) {
  process.stderr.write(`error: no test file matches ${words.join(' ') || lane}\n`)
  process.exit(2)
}
// Crash tests start hundreds of processes, and guests are emulated; the limit is for what hangs, not for
// what is slow.
const limit = lane === 'long' ? 7_200_000 : 3_600_000
step(
  'node',
  ['--test', '--test-concurrency=2', `--test-timeout=${limit}`, ...files],
  lane === 'long' ? { HOLDFAST_CRASH_STEP: '1', ...process.env } : {},
)
