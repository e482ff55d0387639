import { run } from '@holdfast/base'
import type { Drill } from './drill.ts'
import type { Command } from './fleet.ts'
import { command, isOpen, setGuardedFleet, staysLocked } from './fleet-scene.ts'

/** An empty clock battery: every start of the machine is at the beginning of 1970. */
export const clockAt1970: Drill = {
  name: 'clock-at-1970',
  title: 'A node whose clock says 1970',
  summary:
    'From its first start on, one of four nodes believes that it is 1970. It is enrolled, moved to guardians, opens after a power cut, is a guardian whom another node needs, and obeys commands: no decision depends on its clock.',
  run: async (stage) => {
    const { timeline, signal, agent } = stage
    const early = at1970(agent)
    const { stdout } = await run(early.program, [...early.args.slice(0, fakes), 'date', '+%Y'])
    const year = stdout.toString('utf8').trim()
    timeline.proves("the node's programs are told that it is 1970", year === '1970', { year })
    const commandOf = (name: string) => (name === 'node-2' ? early : undefined)
    const { plane, nodes } = await setGuardedFleet(stage, { commandOf })
    const [, late, ward, away] = nodes
    if (!late || !ward || !away) throw new Error('there are four nodes')
    await late.cutPower()
    await late.start()
    await isOpen(stage, 'after a power cut it opens', plane, late)
    for (const node of [late, ward, away]) await node.cutPower()
    await ward.start()
    await staysLocked(stage, 'another node does not open without it', ward)
    await late.start()
    await isOpen(stage, 'and with it as a guardian it does', plane, ward)
    await isOpen(stage, 'they open each other', plane, late)
    const done = await command(plane, late, { command: 'rehearse' }, signal)
    timeline.proves('it proves its ways in on command', done.state === 'done', {
      state: done.state,
      code: done.code ?? '',
    })
  },
}

/** Words before the program that is deceived. */
const fakes = 3

/**
 * libfaketime in the process itself: its own wrapper would survive it. The monotonic clock is left
 * alone, as an empty battery does; ld.so(8) puts the machine's library folder in place of $LIB.
 */
function at1970({ program, args }: Command): Command {
  const preload = 'LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1'
  const fake = [preload, 'FAKETIME=@1970-01-01 00:00:10', 'FAKETIME_DONT_FAKE_MONOTONIC=1']
  return { program: 'env', args: [...fake, program, ...args] }
}
