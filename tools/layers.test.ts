import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

// The shape of the tree as a test. Each failure says which rule and why the rule is there.

const root = fileURLToPath(new URL('..', import.meta.url))

/** A part may use the parts before it. */
const order = [
  'base',
  'crypto',
  'seal',
  'protocol',
  'keyserver',
  'vault',
  'link',
  'agent',
  'coordinator',
  'drills',
  'cli',
] as const
/** These may use everything. */
const free = ['test', 'bench', 'tools']

/** Third-party packages at run time, each with the reason it is there. */
const reasons: Readonly<Record<string, string>> = {
  '@hono/node-server': 'serves the API with Node',
  '@hono/zod-openapi': 'routes as data: one schema validates, types and documents',
  '@peculiar/x509': 'certificates and certificate requests',
  '@clack/prompts': 'passphrase and confirmation prompts',
  'cli-progress': 'progress bars on long work',
  'cli-table3': 'tables in a terminal',
  cockatiel: 'retry with decorrelated jitter',
  commander: 'the command tree',
  hono: "the coordinator's HTTP application",
  jose: 'JWS, and JWE for everything but the derived-secret opening it cannot do',
  kysely: 'one query code base for SQLite and PostgreSQL',
  pg: 'the PostgreSQL driver',
  pino: 'logging',
  pngjs: 'QR codes as PNG files',
  'prom-client': 'metrics in the Prometheus format',
  'reflect-metadata': 'what @peculiar/x509 needs to be loaded first',
  uqr: 'QR codes in a terminal',
  ws: 'WebSockets between agents and the coordinator',
  zod: 'schemas of files and messages',
}

/** What only tests use, beside them because a part's tests may not reach out of the part. */
const testSupport = [
  'agent/src/agent-lab.ts',
  'agent/src/boot-state-child.ts',
  'agent/src/crash-lab.ts',
  'agent/src/first-boot-child.ts',
  'agent/src/kill-at-effect.ts',
  'agent/src/killed-child.ts',
  'agent/src/peer-fleet.ts',
  'agent/src/release-log-child.ts',
  'agent/src/simulator-disk.ts',
  'agent/src/simulator.ts',
  'agent/src/ward-keys-child.ts',
  'cli/src/doctor-fixture.ts',
  'cli/src/stage-coordinator.ts',
  'cli/src/stage-fleet.ts',
  'cli/src/stage-processes.ts',
  'cli/src/stage.ts',
  'cli/src/transcript.ts',
  'coordinator/src/agents-fixture.ts',
  'coordinator/src/api-client-fixture.ts',
  'coordinator/src/backup-fixture.ts',
  'coordinator/src/coordinator-fixture.ts',
  'coordinator/src/crash-fixture.ts',
  'coordinator/src/crash-join-fixture.ts',
  'coordinator/src/crash-reshare-fixture.ts',
  'coordinator/src/engines-fixture.ts',
  'coordinator/src/kill-at-effect.ts',
  'coordinator/src/members-fixture.ts',
  'coordinator/src/process-fixture.ts',
  'coordinator/src/restore-crash-fixture.ts',
  'coordinator/src/server-fixture.ts',
  'drills/src/drill-claims.ts',
  'keyserver/src/server-fixture.ts',
  'seal/src/lab.ts',
  'vault/src/crash-child.ts',
  'vault/src/header-crash-child.ts',
  'vault/src/header-fixture.ts',
  'vault/src/lab.ts',
]

const fileLimit = 400
const indexLimit = 20

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8')
}

const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '')

const sources = tracked.filter(
  (path) => /\.(ts|mjs)$/.test(path) && !/generated\/|\/dist\/|assembly\/|\.d\.ts$/.test(path),
)
const product = sources.filter((path) => !/\.(test|vm)\.ts$/.test(path))

interface Import {
  file: string
  target: string
}

function importsOf(file: string): Import[] {
  const text = read(file).replace(/^\s*(\/\/|\*|\/\*).*$/gm, '')
  const pattern =
    /(?:^|\n)\s*(?:import|export)\s[^'"]*?from\s+['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)import\s+['"]([^'"]+)['"]/g
  return [...text.matchAll(pattern)].map((match) => ({
    file,
    target: match[1] ?? match[2] ?? match[3] ?? '',
  }))
}

const partOf = (path: string): string => path.split('/')[0] ?? ''
const packageOf = (target: string): string =>
  target
    .split('/')
    .slice(0, target.startsWith('@') ? 2 : 1)
    .join('/')
const packageNamed = ({ target }: Import): string => packageOf(target)

function manifest(part: string): {
  dependencies?: Record<string, string>
  devDependencies?: Record<string, string>
  exports?: string | Record<string, string>
} {
  return JSON.parse(read(`${part}/package.json`))
}

function none(found: string[], rule: string): void {
  assert.deepEqual(found, [], rule)
}

const imports = sources
  .filter((path) => [...order, ...free].includes(partOf(path)))
  .flatMap(importsOf)

test('a part uses only parts before it', () => {
  const upward = imports.filter(({ file, target }) => {
    const own = order.indexOf(partOf(file) as (typeof order)[number])
    const used = order.indexOf(
      packageOf(target).replace('@holdfast/', '') as (typeof order)[number],
    )
    return target.startsWith('@holdfast/') && own !== -1 && (used === -1 || used >= own)
  })
  none(
    upward.map(({ file, target }) => `${file} imports ${target}`),
    `layers, from below: ${order.join(' < ')}`,
  )
})

test('no relative import leaves its part', () => {
  const leaving = imports.filter(
    ({ file, target }) =>
      target.startsWith('.') && partOf(normalize(join(dirname(file), target))) !== partOf(file),
  )
  none(
    leaving.map(({ file, target }) => `${file} imports ${target}`),
    'parts meet by package name, at their public surface',
  )
})

test('every import is declared by its part', () => {
  const undeclared = imports.filter(({ file, target }) => {
    if (target.startsWith('.') || target.startsWith('node:')) return false
    const { dependencies = {}, devDependencies = {} } = manifest(partOf(file))
    return !(packageOf(target) in { ...dependencies, ...devDependencies })
  })
  none(
    undeclared.map(({ file, target }) => `${file} imports ${target}`),
    'a manifest states all that its part needs',
  )
})

test('third-party packages are few and each has its reason', () => {
  const used = order.flatMap((part) => Object.keys(manifest(part).dependencies ?? {}))
  const unlisted = used.filter((name) => !name.startsWith('@holdfast/') && !(name in reasons))
  none([...new Set(unlisted)], 'a new dependency needs a line with its reason in this file')
  const unused = Object.keys(reasons).filter((name) => !used.includes(name))
  none(unused, 'a reason without its package is left over')
})

test('a manifest states nothing that its part does not need', () => {
  const parts = [...order, ...free]
  const idle = parts.flatMap((part) => {
    const { dependencies = {}, devDependencies = {} } = manifest(part)
    const used = new Set(imports.filter(({ file }) => partOf(file) === part).map(packageNamed))
    return Object.keys({ ...dependencies, ...devDependencies })
      .filter((name) => !used.has(name))
      .map((name) => `${part} declares ${name}`)
  })
  none(idle, 'a declared package that nothing imports is a permission nobody asked for')
  const missing = parts.flatMap((part) => {
    const { exports = {} } = manifest(part)
    const files = typeof exports === 'string' ? [exports] : Object.values(exports)
    return files.map((file) => join(part, file)).filter((file) => !tracked.includes(file))
  })
  none(missing, 'what a manifest exports is there')
})

test('versions are exact', () => {
  const loose = ['.', ...order, ...free].flatMap((part) => {
    const { dependencies = {}, devDependencies = {} } = manifest(part)
    return Object.entries({ ...dependencies, ...devDependencies })
      .filter(([name, version]) => !name.startsWith('@holdfast/') && !/^\d/.test(version))
      .map(([name, version]) => `${part} takes ${name} ${version}`)
  })
  none(loose, 'what was tested is what is installed, also without the lock file')
})

test('the product holds nothing that only tests use', () => {
  const reached = new Set<string>()
  const visit = (file: string): void => {
    if (reached.has(file)) return
    reached.add(file)
    for (const { target } of imports.filter((one) => one.file === file)) {
      if (target.startsWith('.')) visit(normalize(join(dirname(file), target)))
    }
  }
  for (const part of order) {
    const { exports = {} } = manifest(part)
    const surfaces = typeof exports === 'string' ? [exports] : Object.values(exports)
    for (const name of [...surfaces, 'src/index.ts', 'src/main.ts']) {
      if (tracked.includes(join(part, name))) visit(join(part, name))
    }
  }
  const unreached = product.filter(
    (file) => order.includes(partOf(file) as never) && /\/src\//.test(file) && !reached.has(file),
  )
  assert.deepEqual(
    unreached.sort(),
    [...testSupport].sort(),
    'a file that nothing starts from is dead, unless it is listed as what tests share',
  )
})

test('programs are spawned in one place', () => {
  const allowed = ['base/src/run.ts', 'base/src/spawn.ts']
  const spawning = imports.filter(
    ({ file, target }) =>
      target === 'node:child_process' &&
      product.includes(file) &&
      order.includes(partOf(file) as never) &&
      !allowed.includes(file),
  )
  none(
    spawning.map(({ file }) => file),
    'base runs programs: no shell, fixed PATH, secrets by descriptor, announced to the crash tests',
  )
})

test('only main.ts reads the environment, ends the process or sets its exit code', () => {
  const pattern = /process\.(env|exit|exitCode)\b|import\.meta\.main/
  const reading = product.filter(
    (file) =>
      order.includes(partOf(file) as never) &&
      /src\//.test(file) &&
      !/(^|\/)main\.ts$/.test(file) &&
      !testSupport.includes(file) &&
      pattern.test(read(file)),
  )
  none(reading, 'configuration is an argument, so that two of a thing can run in one process')
})

test('files stay small', () => {
  const long = product.filter((file) => read(file).split('\n').length > fileLimit)
  none(long, `a file over ${fileLimit} lines holds more than one thing`)
  const wide = order
    .map((part) => `${part}/src/index.ts`)
    .filter((file) => {
      if (!tracked.includes(file)) return false
      const statements = read(file).match(/^(export|import)\b/gm) ?? []
      return statements.length > indexLimit
    })
  none(wide, `a public surface of more than ${indexLimit} statements is no surface`)
})

test('no junk drawers', () => {
  const drawers = tracked.filter((path) =>
    /(^|\/)(util|utils|common|helpers|shared|misc)(\/|\.ts$)/.test(path),
  )
  none(drawers, 'a name must say what belongs there')
})

test('nothing is skipped, left over or silenced without a reason', () => {
  const texts = sources
    .filter((file) => file !== 'tools/layers.test.ts')
    .map((file) => ({ file, text: read(file) }))
  const find = (pattern: RegExp): string[] =>
    texts.filter(({ text }) => pattern.test(text)).map(({ file }) => file)
  none(
    find(/\b(test|it|describe|suite)\.(skip|todo|only)\b|\b(skip|todo): *true/),
    'a test that cannot fail is a defect',
  )
  none(find(/\b(TODO|FIXME|XXX|HACK)\b/), 'what is not done belongs into an issue')
  none(
    find(/@ts-(ignore|nocheck)|@ts-expect-error\s*$|biome-ignore[^:\n]*$/m),
    'a suppression says why on its line',
  )
})

test('types that Node cannot strip are not used', () => {
  const decorated = product.filter(
    (file) =>
      /^\s*@\w+[\s(]/m.test(read(file).replace(/\/\*[\s\S]*?\*\//g, '')) && file.endsWith('.ts'),
  )
  none(decorated, 'Node strips types, it does not transform decorators')
})
