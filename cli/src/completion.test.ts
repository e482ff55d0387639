import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { run } from '@holdfast/base'
import { completionScript, type Shell, shells } from './completion.ts'
import { commandTree } from './tree.ts'

// The shells themselves complete; what they offer is compared. Each line is completed at its end.

const cases: readonly { line: string; offers: readonly string[]; not?: readonly string[] }[] = [
  { line: 'holdfast va', offers: ['vault'] },
  { line: 'holdfast holder sh', offers: ['share'] },
  { line: 'holdfast vault hea', offers: ['header'] },
  { line: 'holdfast vault header re', offers: ['restore', 'resume'], not: ['report', 'regen'] },
  { line: 'holdfast keyserver ', offers: ['serve', 'rotate', 'prefix'], not: ['worker', 'vault'] },
  { line: 'holdfast vault bind --purpose ', offers: ['automatic', 'recovery'] },
  { line: 'holdfast completion ', offers: ['bash', 'zsh', 'fish'] },
  { line: 'holdfast vault list ima', offers: ['image.img'] },
  { line: 'holdfast open --in ima', offers: ['image.img'] },
  { line: 'holdfast keyserver rotate --cur', offers: ['--curve'] },
]

let folder = ''

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hf-complete-'))
  await writeFile(join(folder, 'image.img'), '')
  for (const shell of shells) {
    await writeFile(join(folder, `script.${shell}`), completionScript(shell, commandTree))
  }
})
after(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function inShell(shell: Shell, script: string): Promise<string> {
  const { stdout } = await run(shell, ['-c', script], {
    cwd: folder,
    timeout: 240_000,
    accept: [0, 1],
    environment: { HOME: folder, TERM: 'xterm' },
  })
  return stdout.toString('utf8')
}

async function bashOffers(line: string): Promise<string[]> {
  const words = line.split(' ')
  const quoted = words.map((word) => `'${word}'`).join(' ')
  const script = `source script.bash; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _holdfast; printf '%s\\n' "\${COMPREPLY[@]}"`
  return (await inShell('bash', script)).split('\n')
}

async function fishOffers(line: string): Promise<string[]> {
  const out = await inShell('fish', `source script.fish; complete -C '${line}'`)
  return out.split('\n').map((offer) => offer.split('\t')[0] ?? '')
}

for (const { line, offers, not = [] } of cases) {
  test(`bash and fish complete "${line}"`, async () => {
    for (const found of [await bashOffers(line), await fishOffers(line)]) {
      for (const offer of offers) assert.ok(found.includes(offer), `${offer} in ${found}`)
      for (const offer of not) assert.ok(!found.includes(offer), `no ${offer} in ${found}`)
    }
  })
}

/**
 * Types lines into an interactive zsh on a pseudo-terminal, each ended by a tab and a new line; after
 * each it waits for what the completed command prints.
 */
function zshScript(lines: readonly string[]): string {
  const typed = lines.flatMap((line) => [
    `zpty -w -n z $'${line}\\t\\n'`,
    "zpty -r -m z seen '*GOT*END*'; print -r -- $seen",
  ])
  const setUp =
    'unsetopt list_beep; stty cols 300; autoload -U compinit; compinit -u -D; source ./script.zsh; holdfast() { print -r -- GO"T" "$@" EN"D" }; print LOA"DED"'
  return [
    'zmodload zsh/zpty; zpty z zsh -f -i',
    `zpty -w z '${setUp}'`,
    "zpty -r -m z seen '*LOADED*'",
    ...typed,
    'zpty -d z',
  ].join('\n')
}

test('zsh completes unique words', async () => {
  const typed = [
    ['holdfast va', 'GOT vault END'],
    ['holdfast vault hea', 'GOT vault header END'],
    ['holdfast vault bind --purpose auto', 'GOT vault bind --purpose automatic END'],
    ['holdfast vault list ima', 'GOT vault list image.img END'],
    ['holdfast keyserver rotate --cur', 'GOT keyserver rotate --curve END'],
  ] as const
  const out = await inShell('zsh', zshScript(typed.map(([line]) => line)))
  for (const [line, expected] of typed) assert.ok(out.includes(expected), `${line}: ${out}`)
})
