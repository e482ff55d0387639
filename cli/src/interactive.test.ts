import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isObject, type JsonObject, parseJsonObject, run, startProgram } from '@holdfast/base'
import { Stage } from './stage.ts'

// What happens on a terminal: prompts without echo, the live table, Ctrl-C. The terminal is a real
// pseudo-terminal of zsh's zpty or of script(1).

let stage: Stage

before(async () => {
  stage = await Stage.start(false)
})
after(async () => {
  await stage[Symbol.asyncDispose]()
})

/** Runs a command on a pseudo-terminal, and for each prompt types an answer. */
async function converse(command: string, talk: readonly [string, string][]): Promise<string> {
  const lines = talk.flatMap(([prompt, answer]) => [
    `zpty -r -m z seen '*${prompt}*'; print -rn -- $seen`,
    `zpty -w -n z $'${answer}'`,
  ])
  const script = [
    'zmodload zsh/zpty',
    `zpty z '${stage.real(command)}; print -r -- EXIT=$?.'`,
    ...lines,
    "zpty -r -m z seen '*EXIT=*.*'; print -rn -- $seen",
    'zpty -d z',
  ].join('\n')
  const { stdout } = await run('zsh', ['-fc', script], {
    cwd: stage.work,
    environment: { ...stage.environment, TERM: 'xterm' },
    timeout: 240_000,
  })
  return stdout.toString('utf8')
}

test('a passphrase is asked for at the terminal and not echoed', async () => {
  await stage.reset()
  await stage.shell(
    "holdfast seal passphrase '{}' --in secret --out p.jwe --passphrase-file passphrase",
  )
  const seen = await converse('holdfast open --in p.jwe', [
    ['Enter passphrase', 'correct horse battery staple\\r'],
  ])
  assert.match(seen, /the secret/)
  assert.match(seen, /EXIT=0/)
  assert.doesNotMatch(seen, /horse/)
})

test('Ctrl-C at a prompt ends the command with 130 and writes nothing', async () => {
  await stage.reset()
  await stage.shell(
    "holdfast seal passphrase '{}' --in secret --out p.jwe --passphrase-file passphrase",
  )
  const seen = await converse('holdfast open --in p.jwe --out plain', [
    ['Enter passphrase', 'corr\\x03'],
  ])
  assert.match(seen, /EXIT=130/)
  assert.ok(!existsSync(join(stage.work, 'plain')))
})

const untrusting = (out: string) =>
  `holdfast seal tang "{\\"url\\":\\"http://tang1.example.com\\"}" --in secret --out ${out}`

test('a new key server is trusted when a person says so', async () => {
  await stage.reset()
  const seen = await converse(untrusting('yes.jwe'), [['Do you trust', 'y']])
  assert.match(seen, /EXIT=0/)
  const { stdout } = await stage.shell('holdfast open --in yes.jwe')
  assert.equal(stdout.toString('utf8'), 'the secret\n')
})

test('no is the answer when nothing but Enter is typed', async () => {
  await stage.reset()
  const seen = await converse(untrusting('no.jwe'), [['Do you trust', '\\r']])
  assert.match(seen, /were not confirmed/)
  assert.match(seen, /EXIT=4/)
  assert.ok(!existsSync(join(stage.work, 'no.jwe')))
})

test('a request of a technician is answered when the digest that is shown was read out', async () => {
  await stage.reset()
  const made = await stage.shell(
    'holdfast vault create site.img --size 32M --automatic servers.json --recovery holders.json --owner-passphrase-file passphrase --holder-key alice=alice.key --holder-key bob=bob.key > /dev/null && holdfast vault export-request site.img --technician tech.pub --out request.json --json',
  )
  const { digest } = parseJsonObject(made.stdout.toString('utf8'), made.stderr)
  const answer = (out: string) => `holdfast recover answer request.json --out ${out}`
  const no = await converse(answer('no.txt'), [['digest is', '\\r']])
  assert.match(no, /it was not confirmed/)
  assert.match(no, /EXIT=4/)
  assert.ok(!existsSync(join(stage.work, 'no.txt')))
  const yes = await converse(answer('yes.txt'), [['digest is', 'y']])
  assert.ok(yes.includes(String(digest)), yes)
  assert.match(yes, /EXIT=0/)
  assert.ok(existsSync(join(stage.work, 'yes.txt')))
})

test('--unattended asks nobody, terminal or not', async () => {
  await stage.reset()
  const seen = await converse(`${untrusting('none.jwe')} --unattended`, [])
  assert.match(seen, /no trust in key server/)
  assert.match(seen, /EXIT=4/)
})

test('colours are for terminals, and NO_COLOR is honoured', async () => {
  await stage.reset()
  const plain = await converse('holdfast rehearse --in secret.jwe', [])
  assert.ok(!plain.includes('\u001b[3'), 'NO_COLOR is set for every command here')
  const coloured = await converse('unset NO_COLOR; holdfast rehearse --in secret.jwe', [])
  assert.ok(coloured.includes('\u001b[32mproven'))
  const piped = await stage.shell('unset NO_COLOR; holdfast rehearse --in secret.jwe')
  assert.ok(!piped.stdout.includes('\u001b['))
})

test('what cannot be undone on a node asks for its name', async () => {
  const panic = 'holdfast node panic node-1 --level 1'
  await stage.reset(panic)
  const wrong = await converse(panic, [['Type node-1 to do this', 'node-2\\r']])
  assert.match(wrong, /a key must be pushed to open it again/)
  assert.match(wrong, /that is not its name; nothing was done/)
  assert.match(wrong, /EXIT=4/)
  const right = await converse(panic, [['Type node-1 to do this', 'node-1\\r']])
  assert.match(right, /panic 1 of node-1 is finished/)
  assert.match(right, /EXIT=0/)
})

test('the code of a new machine is typed and not echoed', async () => {
  const enrol = 'holdfast node enrol new.example.com:9999 --name node-2'
  await stage.reset(enrol)
  const code = (await stage.shell('console-code')).stdout.toString('utf8').trim()
  const seen = await converse(enrol, [['The code on the console of', `${code}\\r`]])
  assert.match(seen, /node-2 is enrolled/)
  assert.match(seen, /EXIT=0/)
  assert.ok(!seen.includes(code), 'the code was echoed')
})

interface Fleet {
  pid: number
  directory: string
  /** Its key servers, its coordinator and its nodes. */
  members: number[]
}

/** The fleet that runs, as a second terminal sees it. */
async function fleetNow(): Promise<Fleet> {
  const { stdout, code, stderr } = await stage.shell('holdfast up status --json')
  assert.equal(code, 0, stderr)
  return fleetOf(parseJsonObject(stdout.toString('utf8'), 'the status'))
}

function fleetOf(report: JsonObject): Fleet {
  const { pid, directory, status, servers, control } = report
  const list = isObject(status) ? status.servers : servers
  assert.ok(Array.isArray(list) && isObject(control) && Array.isArray(control.nodes))
  const members = [...list, control.coordinator, ...control.nodes]
  return {
    pid: Number(pid),
    directory: String(directory),
    members: members.map(({ pid: id }) => Number(id)),
  }
}

function lives(pid: number): boolean {
  return existsSync(`/proc/${pid}`)
}

test('up draws its table in place on a terminal, and Ctrl-C leaves nothing behind', async () => {
  const drawn = Promise.withResolvers<void>()
  let shown = ''
  const { running } = await startProgram(
    'script',
    ['-qfec', `'${process.execPath}' '${stage.program}' up --nodes 3 --interval 1`, '/dev/null'],
    (line) => {
      shown += `${line}\n`
      // The second drawing goes back over the first.
      if (shown.includes('A\u001b[0J')) drawn.resolve()
      return shown.includes('In a second terminal')
    },
    {
      cwd: stage.work,
      environment: { ...stage.environment, TERM: 'xterm', SHELL: '/bin/sh' },
      readyWithin: 240_000,
    },
  )
  const fleet = await fleetNow()
  await drawn.promise
  assert.equal(fleet.members.filter(lives).length, 7)
  process.kill(fleet.pid, 'SIGINT')
  assert.equal(await running.ended, 0)
  assert.deepEqual([fleet.pid, ...fleet.members].filter(lives), [])
  assert.ok(!existsSync(fleet.directory))
})

test('SIGTERM cleans up too; what a killed fleet left is cleared by the next', async () => {
  const first = await stage.launch(['up', '--json', '--nodes', '3'])
  const killed = fleetOf(parseJsonObject(first.line, 'the first line'))
  first.running.kill('SIGKILL')
  await first.running.ended
  assert.equal(killed.members.filter(lives).length, 7, 'its processes live on')
  const second = await stage.launch(['up', '--json', '--nodes', '3'])
  await using _second = second.running
  assert.deepEqual(killed.members.filter(lives), [])
  const fleet = await fleetNow()
  second.running.kill('SIGTERM')
  assert.equal(await second.running.ended, 0)
  assert.deepEqual([fleet.pid, ...fleet.members].filter(lives), [])
  assert.ok(!existsSync(fleet.directory))
})

test('a second local fleet in the same place is refused', async () => {
  const { running } = await stage.launch(['up', '--json', '--nodes', '0'])
  await using _running = running
  const { code, stderr } = await stage.shell('holdfast up')
  assert.equal(code, 8)
  assert.match(
    stderr,
    /^error: the local fleet in .* is in use by process \d+\nhint: look at it: holdfast up status/,
  )
})
