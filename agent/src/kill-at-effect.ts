import { subscribe } from 'node:diagnostics_channel'

// Loaded by crash tests before the real program: kills it, as a power cut would, right after the n-th
// effect, and says on standard error how many there were.

const killAt = Number(process.env.HOLDFAST_KILL_AT)
let effects = 0
subscribe('holdfast:effect', () => {
  effects += 1
  if (effects === killAt) process.kill(process.pid, 'SIGKILL')
})
process.once('exit', () =>
  process.stderr.write(`${JSON.stringify({ kind: 'effects', effects })}\n`),
)
