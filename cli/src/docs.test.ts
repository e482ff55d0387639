import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from './program.ts'
import { Stage } from './stage.ts'
import { consoleBlocks, matches, parseTranscript, type Step } from './transcript.ts'
import { commandTree } from './tree.ts'

// Every command in README.md and docs/operator/*.md is run, in the order of the page, so that no
// page tells what does not work. Conventions for those who write the pages:
//   - commands stand in ```console blocks, each on a line that starts with `$ `; a line that ends in \
//     goes on in the next one; `cd` holds until the end of the page;
//   - the lines below a command are what it prints, standard output and error together; `...` stands
//     for any text or, alone, any lines; without such lines what is printed is not compared;
//   - a command that ends in `# exits N` must do that, others must exit with 0;
//   - names stand for real things as stage.ts says: /dev/sdb1, http://tang1.example.com, /var/lib/tang,
//     admin.sock, KID1, and the files alice.key, servers.json, holders.json, secret, passphrase ...;
//   - `npx holdfast` is `holdfast`; `holdfast up` and `npm start` run until the end of the page;
//   - holdfast commands in other blocks, indented or fenced, are not run; they must parse.

const root = fileURLToPath(new URL('../..', import.meta.url))
const guide = join(root, 'docs/operator')
const pages = [
  ...(existsSync(join(root, 'README.md')) ? ['README.md'] : []),
  ...readdirSync(guide)
    .filter((name) => name.endsWith('.md'))
    .sort()
    .map((name) => join('docs/operator', name)),
]

let stage: Stage

before(async () => {
  stage = await Stage.start()
})
after(async () => {
  await stage[Symbol.asyncDispose]()
})

for (const page of pages) {
  test(`the commands of ${page}`, async () => {
    const text = readFileSync(join(root, page), 'utf8')
    const typed = consoleBlocks(text).map((block) => block.text)
    // A page that brings its own fleet up speaks of that one's nodes.
    const ownFleet = typed.some((block) => /^\$ (npm start|holdfast up)\b/m.test(block))
    await stage.reset(ownFleet ? '' : typed.join('\n'))
    await using running = new AsyncDisposableStack()
    const place = { directory: stage.work }
    for (const { text: block, line } of consoleBlocks(text)) {
      for (const step of parseTranscript(block).steps) {
        const where = `${page}:${line + step.line - 1}`
        if (/^(holdfast up|npm start)$/.test(plain(step))) {
          running.use((await stage.launch(['up'])).running)
        } else await perform(step, where, place)
      }
    }
  })

  test(`the command line accepts every other command of ${page}`, async () => {
    for (const command of otherCommands(readFileSync(join(root, page), 'utf8'))) {
      const words = wordsOf(command)
      await assert.doesNotReject(parse(commandTree, words, '0'), `${page}: ${command}`)
    }
  })

  test(`the commands that ${page} names exist`, async () => {
    for (const command of namedCommands(readFileSync(join(root, page), 'utf8'))) {
      const words = wordsOf(command.replaceAll(/\s+/g, ' '))
      const isName = words.every((word) => /^[a-z][a-z-]*$/.test(word))
      const { kind } = await parse(commandTree, isName ? [...words, '--help'] : words, '0')
      assert.equal(kind, isName ? 'print' : 'run', `${page}: ${command}`)
    }
  })
}

/** Commands of ours in indented blocks and in fenced ones that are not run. */
function otherCommands(text: string): string[] {
  const rest = text.replace(/```console\n[\s\S]*?\n```/g, '')
  const line = /^(?: {2,7}|\$ |ExecStart=)?(?:npx |\S+\/bin\/)?(holdfast .*)$/gm
  return [...rest.replace(/\\\n\s*/g, ' ').matchAll(line)].map(([, command = '']) => command)
}

/** Commands of ours named in sentences: `holdfast vault list` stands without what it needs. */
function namedCommands(text: string): string[] {
  const prose = text.replace(/```[\s\S]*?\n```/g, '')
  return [...prose.matchAll(/`(holdfast [^`]+)`/g)].map(([, command = '']) => command)
}

/** The words of a simple command, up to a comment, redirection or pipe. */
function wordsOf(command: string): string[] {
  const words = command.match(/'[^']*'|"[^"]*"|[^\s'"]+/g) ?? []
  const end = words.findIndex((word) => /^(#|[<>|&;])/.test(word))
  return words
    .slice(1, end === -1 ? undefined : end)
    .map((word) => word.replace(/^['"]|['"]$/g, ''))
}

/** A command without its comment. */
function plain({ command }: Step): string {
  return command.replace(/\s+#.*$/, '').replaceAll('npx holdfast', 'holdfast')
}

async function perform(step: Step, where: string, place: { directory: string }): Promise<void> {
  const expected = Number(/# exits (\d+)\s*$/.exec(step.command)?.[1] ?? 0)
  const mark = join(stage.root, 'directory')
  const { code, stdout, stderr } = await stage.shell(
    `cd '${place.directory}' && { ${plain(step)}\n}; code=$?; pwd > '${mark}'; exit $code`,
  )
  place.directory = (await readFile(mark, 'utf8')).trim()
  const printed = stage.documented(`${stdout.toString('utf8')}${stderr}`)
  const shown = `${where}: ${step.command}\n${printed}`
  assert.equal(code, expected, shown)
  if (step.out.length > 0) assert.ok(matches(step.out, printed), `it printed otherwise: ${shown}`)
}
