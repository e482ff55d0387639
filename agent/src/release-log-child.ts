import { argv } from 'node:process'
import { ReleaseLog } from './release-log.ts'

// Started as a program by release-log.test.ts, and killed after some effect: opens the log given as its
// argument, with segments of a few lines, and appends releases of so many wards. One line of text for
// each of them that is durable.

const [, , path = '', count = '0'] = argv
const options = { segmentBytes: 700, segmentsKept: 3 }
const { log, entries } = await ReleaseLog.open(path, () => 0, {
  ...options,
  onDamage: ({ code }) => process.stdout.write(`${code}\n`),
})
const wards = new Set(entries.flatMap(({ event, ward }) => (event === 'released' ? [ward] : [])))
process.stdout.write(`read ${[...wards].join()}\n`)
for (let turn = 0; turn < Number(count); turn += 1) {
  const ward = `ward-${turn}`
  await log.append({ event: 'released', ward, epoch: 1, source: `192.0.2.${turn}`, code: '' })
  process.stdout.write(`${ward}\n`)
}
