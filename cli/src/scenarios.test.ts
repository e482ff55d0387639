import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Stage } from './stage.ts'
import { matches, parseTranscript, type Step } from './transcript.ts'

const folder = fileURLToPath(new URL('../scenarios', import.meta.url))
let stage: Stage

before(async () => {
  stage = await Stage.start()
})
after(async () => {
  await stage[Symbol.asyncDispose]()
})

/** It destroys keys of a server that the other scenarios' volumes are bound to. */
const last = 'exposure.txt'
const others = readdirSync(folder).filter((name) => name.endsWith('.txt') && name !== last)
const names = [...others.sort(), last]

test('there are scenarios', () => {
  assert.ok(names.length >= 8, `only ${names.length} scenarios`)
})

for (const name of names) {
  test(`scenario ${name.replace('.txt', '')}`, async () => {
    const text = readFileSync(join(folder, name), 'utf8')
    await stage.reset(text)
    const { steps, files } = parseTranscript(text)
    assert.ok(steps.length > 0, 'it has no commands')
    for (const [file, text] of files) await writeFile(join(stage.work, file), stage.real(text))
    for (const step of steps) await perform(step, name)
  })
}

/** Scenarios are strict: everything that is printed is expected. */
async function perform(step: Step, name: string): Promise<void> {
  const result = await stage.shell(step.command)
  const out = stage.documented(result.stdout.toString('utf8'))
  const err = stage.documented(result.stderr)
  const shown = `${name}:${step.line}: ${step.command}\nstdout:\n${out}\nstderr:\n${err}`
  assert.equal(result.code, step.code, shown)
  assert.ok(matches(step.out, out), `standard output differs at ${shown}`)
  assert.ok(matches(step.err, err), `standard error differs at ${shown}`)
}
