import { hardwareOptions, runAgent } from '@holdfast/agent'
import type { Context } from './command.ts'
import type { Input } from './input.ts'

/** `holdfast agent serve`: prints one line when it runs and ends with the signal. */
export async function serveAction(input: Input, context: Context): Promise<undefined> {
  const { settings, streams, signal, json, clock } = context
  const [host, terminal] = [input.text('host'), input.text('console')]
  const [mount, reboot] = [input.text('mount'), input.text('reboot-command')]
  const boot = input.text('boot-id')
  const port = (name: string, usual: number) => input.count(name, 0, 65_535) ?? usual
  await runAgent(
    {
      directory: input.text('directory') ?? settings.stateDirectory,
      runtimeDirectory: input.text('runtime') ?? settings.runtimeDirectory,
      device: input.requiredText('device'),
      ...(host === undefined ? {} : { host }),
      enrolmentPort: port('enrolment-port', 9999),
      peerPort: port('peer-port', 9998),
      wireguardPort: port('wireguard-port', 51_820),
      ...hardwareOptions(input.text('tunnel'), input.text('tpm')),
      works: {
        ...(mount === undefined ? {} : { mountPath: mount }),
        ...(reboot === undefined ? {} : { rebootCommand: reboot }),
        ...(boot === undefined ? {} : { bootIdPath: boot }),
      },
      clock,
    },
    {
      ...(terminal === undefined ? {} : { console: terminal }),
      onReady: async (ready) =>
        await streams.out(`${json ? JSON.stringify(ready) : `node ${ready.node} runs`}\n`),
      write: (line) => streams.err(line.trimEnd()),
    },
    signal,
  )
  return undefined
}
