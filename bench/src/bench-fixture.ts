import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { isObject, type JsonObject, parseJsonObject, run } from '@holdfast/base'

// Runs a bench of whole fleets with a handful of nodes, for tests.

const program = fileURLToPath(new URL('main.ts', import.meta.url))

/** The figures of one result, with so many agents. */
export async function figuresOf(name: string, agents: number): Promise<JsonObject> {
  const small = ['--json', '--rounds', '1', '--seconds', '0.2', '--agents', `${agents}`]
  const { stdout } = await run(process.execPath, [program, name, ...small], { timeout: 280_000 })
  const { results } = parseJsonObject(stdout.toString('utf8'), 'the printed document')
  assert.ok(Array.isArray(results) && results.length === 1)
  const [result] = results
  assert.ok(isObject(result) && isObject(result.ours))
  return result.ours
}

/** Every one of these was measured. */
export function above(figures: JsonObject, ...names: string[]): void {
  for (const name of names) {
    const figure = figures[name]
    assert.ok(typeof figure === 'number' && figure > 0, `${name} is ${String(figure)}`)
  }
}
