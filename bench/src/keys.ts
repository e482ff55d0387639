import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '@holdfast/base'
import { type CurveName, generateEcKey, jwkOf, pointOf, thumbprint } from '@holdfast/crypto'

/** A key directory that both tangd and ours serve. */
export interface KeyDirectory {
  readonly path: string
  readonly crv: CurveName
  /** Thumbprint of its exchange key, as /rec wants it. */
  readonly kid: string
  /** Thumbprint of its signing key, as a binding pins it. */
  readonly thp: string
}

const signingAlgorithms = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' } as const

/** Makes a key directory with `jose`, as tangd's own tools do: one signing, one exchange key. */
export async function makeKeyDirectory(path: string, crv: CurveName): Promise<KeyDirectory> {
  await mkdir(path, { mode: 0o700 })
  const signing = await makeKey(path, { alg: signingAlgorithms[crv] })
  const exchange = await makeKey(path, { alg: 'ECMR', crv })
  return { path, crv, kid: exchange, thp: signing }
}

async function makeKey(path: string, template: Record<string, string>): Promise<string> {
  const { stdout } = await run('jose', ['jwk', 'gen', '-i', JSON.stringify(template)])
  const text = stdout.toString('utf8')
  const kid = thumbprint(JSON.parse(text))
  const file = join(path, `${kid}.jwk`)
  await writeFile(file, text)
  await chmod(file, 0o440)
  return kid
}

/** Whole recovery requests as clevis sends them through curl, each with another random point. */
export function recoveryRequests({ crv, kid }: KeyDirectory, count: number): string[] {
  return Array.from({ length: count }, () => {
    const body = `${JSON.stringify({ alg: 'ECMR', ...jwkOf(pointOf(generateEcKey(crv)), crv) })}\n`
    const head = [
      `POST /rec/${kid} HTTP/1.1`,
      'Host: 127.0.0.1',
      'User-Agent: curl/7.88.1',
      'Accept: */*',
      'Content-Type: application/jwk+json',
      `Content-Length: ${body.length}`,
    ]
    return `${head.join('\r\n')}\r\n\r\n${body}`
  })
}
