import { fileURLToPath, pathToFileURL } from 'node:url'
import type { WholeFleet } from '@holdfast/drills'
import type { Settings } from './command.ts'

/**
 * What to try in a second terminal: lines that can be copied.
 * @param elsewhere the fleet is not in its usual place, so commands must be told where
 * @param seconds that it took until everything ran
 */
export function upHints(
  { local, plane }: WholeFleet,
  settings: Settings,
  elsewhere: boolean,
  seconds: number,
): string {
  const launcher = fileURLToPath(new URL('../bin/holdfast', pathToFileURL(settings.program)))
  const [where, state] = elsewhere ? [' --directory .', ' --state-dir state'] : ['', '']
  const keys = local.holders.slice(0, 2).map(({ name }) => ({ name, file: `holders/${name}.key` }))
  const given = keys.map(({ name, file }) => `--holder-key ${name}=${file}`)
  const nodes = [
    `  holdfast node kill node-2${where}    # a power cut; its guardians open it again:`,
    `  holdfast node start node-2${where}`,
    `  holdfast status${state}`,
    `  holdfast coordinator seal${state}    # the fleet goes on; now two holders are needed:`,
    `  holdfast coordinator recover${state}`,
    ...keys.map(({ name, file }) => `  holdfast holder answer ${name} --key ${file}${state}`),
  ]
  return [
    `Ready after ${Math.round(seconds)} s. Ctrl-C here ends it and removes everything. In a second terminal:`,
    `  cd ${local.directory} && alias holdfast=${launcher}`,
    `  holdfast up stop server-1${where}    # a key server is gone: everything still opens`,
    `  holdfast vault unlock vault.img${state}`,
    `  holdfast up start server-1${where}`,
    ...(plane === undefined ? [] : nodes),
    '  holdfast keyserver rotate --admin servers/0/admin.sock',
    `  holdfast vault report vault.img${state}    # names the rotated server and the next command`,
    `  holdfast vault regen vault.img --keyslot 1${state}`,
    '  dd if=/dev/urandom of=vault.img bs=1M count=16 conv=notrunc    # destroy the header',
    `  holdfast vault header restore vault.img${state} ${given.join(' ')}`,
    '  holdfast drill list    # the other disasters',
    '',
  ].join('\n')
}
