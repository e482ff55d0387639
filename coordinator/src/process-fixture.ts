import { fileURLToPath } from 'node:url'
import { parseJsonObject, type RunningProgram, startProgram } from '@holdfast/base'
import { type Ask, client } from './api-client-fixture.ts'
import { answerOf, type Person } from './coordinator-fixture.ts'

export interface Instance extends AsyncDisposable {
  readonly running: RunningProgram
  readonly port: number
  readonly pin: string
  readonly ask: Ask
}

const program = fileURLToPath(new URL('main.ts', import.meta.url))

/** Starts a coordinator process and waits until it listens. */
export async function startInstance(
  directory: string,
  words: readonly string[] = [],
  preload?: { path: string; environment: Record<string, string> },
): Promise<Instance> {
  const imports = preload === undefined ? [] : ['--import', preload.path]
  const { running, line } = await startProgram(
    process.execPath,
    [
      ...imports,
      program,
      '--directory',
      directory,
      '--rate',
      '1000000',
      '--refresh',
      '100',
      ...words,
    ],
    (text) => text.includes('"ready"'),
    { readyWithin: 60_000, ...(preload === undefined ? {} : { environment: preload.environment }) },
  )
  const { port, identity } = parseJsonObject(line, 'the first line')
  const pin = String(identity)
  return {
    running,
    port: Number(port),
    pin,
    ask: client({ port: Number(port) }, pin),
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

/** Asks until the reply satisfies; a bounded number of times. */
export async function until(
  ask: Ask,
  path: string,
  satisfied: (body: Record<string, unknown>) => boolean,
): Promise<Record<string, unknown>> {
  let last: unknown
  for (let tried = 0; tried < 1200; tried += 1) {
    try {
      const { body } = await ask('GET', path)
      if (satisfied(body)) return body
      last = body
    } catch (error) {
      last = error
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`${path} never became what was waited for`, { cause: last })
}

/** One holder fetches the request and hands the answer in, over HTTPS. */
export async function answerOver(ask: Ask, id: string, who: Person) {
  const { body } = await ask('GET', `/v1/ceremonies/${id}/requests/${who.name}`)
  const { holder, statement, signature } = answerOf(
    who,
    String(body.statement),
    String(body.wrapped),
  )
  return await ask('POST', `/v1/ceremonies/${id}/answers`, {
    holder,
    statement: statement.toString('base64url'),
    signature: signature.toString('base64url'),
  })
}
