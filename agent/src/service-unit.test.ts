import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '@holdfast/base'
import { type ServiceDefinition, serviceDefinitionSchema } from '@holdfast/protocol/manifest'
import fc from 'fast-check'
import { statePath, unitName, unitProblem, unitText } from './service-unit.ts'

const place = { state: statePath, hidden: ['/var/lib/holdfast'], credentials: { web: '/v/100%/t' } }

const service = (given: Partial<ServiceDefinition>): ServiceDefinition =>
  serviceDefinitionSchema.parse({ command: ['/usr/bin/env'], directory: 'web', ...given })

/** Settings of a unit file as systemd.syntax(7) reads it: sections, joined lines, repeated keys. */
function settings(text: string): [section: string, key: string, value: string][] {
  const found: [string, string, string][] = []
  let section = ''
  for (const line of text.replaceAll('\\\n', ' ').split(/[\n\r\0]/)) {
    if (line === '' || /^[#;]/.test(line)) continue
    const header = /^\[(.*)\]$/.exec(line)
    if (header?.[1] !== undefined) section = header[1]
    else {
      const at = line.indexOf('=')
      found.push([section, line.slice(0, at), line.slice(at + 1)])
    }
  }
  return found
}

/** The words of a quoted command line, after unescaping and specifiers. */
function words(line: string): string[] {
  const parts = [...line.matchAll(/"((?:[^"\\]|\\.)*)"|([^\s"]+)/gs)]
  return parts.map(([, inside, bare = '']) =>
    (inside ?? bare)
      .replace(/\\(?:x([0-9a-f]{2})|(.))/gs, (_, hex: string | undefined, character: string) =>
        hex === undefined ? character : String.fromCharCode(Number.parseInt(hex, 16)),
      )
      .replaceAll('%%', '%'),
  )
}

const nasty = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ...['\n', '\r', '\\', '"', "'", '%', '%n', '$HOME', ';', '#', ' ', '\t', '[Service]'],
        '\nExecStartPre=+/bin/sh',
        '\u0085',
        '\u2028',
      ),
      fc.string({ unit: 'binary', maxLength: 6 }),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join(''))
  .filter((text) => text.isWellFormed() && !text.includes('\0'))

test('whatever an argument holds reaches the program as it is, and is no setting', () => {
  fc.assert(
    fc.property(fc.array(nasty, { maxLength: 5 }), nasty, (rest, description) => {
      const given = service({ command: ['/usr/bin/env', ...rest], description: 'x' })
      const text = unitText('web', { ...given, description }, place)
      const plain = settings(unitText('web', service({}), place))
      const found = settings(text)
      const keys = (list: typeof found) => list.map(([section, key]) => `${section}.${key}`)
      assert.deepEqual(keys(found), keys(plain))
      const line = found.find(([, key]) => key === 'ExecStart')?.[2] ?? ''
      assert.deepEqual(words(line), [':/usr/bin/env', ...rest])
      for (const [, key, value] of found) {
        if (key === 'ExecStart' || key === 'Description') continue
        assert.equal(value, plain.find(([, each, same]) => each === key && same === value)?.[2])
      }
    }),
    { numRuns: 500 },
  )
})

test('systemd itself finds nothing to complain about in generated units', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-units-'))
  try {
    const commands = fc.sample(fc.array(nasty, { maxLength: 4 }), { numRuns: 40, seed: 7 })
    const paths = await Promise.all(
      commands.map(async (rest, index) => {
        const given = service({
          command: ['/usr/bin/env', ...rest],
          description: rest.join(' ').slice(0, 200),
          memoryMegabytes: 64,
          syscalls: {
            groups: ['@system-service', 'ptrace'],
            mode: index % 2 === 0 ? 'audit' : 'enforce',
          },
        })
        const path = join(folder, unitName(`s${index}`))
        await writeFile(path, unitText(`s${index}`, given, place))
        return path
      }),
    )
    const { stderr } = await run('systemd-analyze', ['verify', '--man=no', ...paths])
    assert.equal(stderr, '')
    // The same program does complain about a setting it does not know.
    const wrong = join(folder, unitName('wrong'))
    await writeFile(wrong, `${unitText('wrong', service({}), place)}ProtectEverything=yes\n`)
    const bad = await run('systemd-analyze', ['verify', '--man=no', wrong], { accept: [0, 1] })
    assert.match(bad.stderr, /Unknown key 'ProtectEverything'/)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('a service cannot begin before the vault is mounted, nor see the keys of the node', () => {
  const text = unitText('web', service({}), place)
  const of = (key: string) => settings(text).filter((setting) => setting[1] === key)
  assert.deepEqual(of('RequiresMountsFor'), [['Unit', 'RequiresMountsFor', `"${statePath}"`]])
  assert.deepEqual(of('AssertPathIsMountPoint'), [['Unit', 'AssertPathIsMountPoint', statePath]])
  assert.deepEqual(of('InaccessiblePaths'), [
    ['Service', 'InaccessiblePaths', '"-/var/lib/holdfast"'],
  ])
  assert.equal(of('LoadCredential')[0]?.[2], 'token:/v/100%%/t')
  assert.doesNotMatch(text, /\[Install\]/)
})

test('a system-call filter is logged in audit mode and enforced in enforce mode', () => {
  const groups = ['@system-service', '@sandbox']
  const audit = unitText('web', service({ syscalls: { groups, mode: 'audit' } }), place)
  assert.match(audit, /^SystemCallLog=~@system-service @sandbox$/m)
  assert.doesNotMatch(audit, /SystemCallFilter/)
  const enforce = unitText('web', service({ syscalls: { groups, mode: 'enforce' } }), place)
  assert.match(enforce, /^SystemCallFilter=@system-service @sandbox$/m)
  assert.match(unitText('web', service({}), place), /^SystemCallLog=~@system-service$/m)
})

test('what cannot be a unit is refused with the reason', () => {
  for (const program of ['sh', './x', '/bin/a b', '@/bin/sh', '+/bin/sh', '', '/bin/$HOME']) {
    const given = { ...service({}), command: [program] }
    assert.match(unitProblem(given) ?? '', /absolute path/, program)
    assert.throws(() => unitText('web', given, place), RangeError)
  }
  assert.match(unitProblem(service({ command: ['/bin/a', 'a\0b'] })) ?? '', /zero byte/)
  assert.match(unitProblem(service({ command: ['/bin/a', '\ud800'] })) ?? '', /Unicode/)
})
