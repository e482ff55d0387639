import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openNodeDirectory, WardKeys } from '@holdfast/agent'
import { startSwtpm } from '@holdfast/base/swtpm-fixture'

// A node's private keys under a real TPM in software: made there, moved there, and worth nothing on a
// copy of the disk in another machine.

async function scratch() {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-agent-tpm-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

function ward() {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const identity = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const der = publicKey.export({ type: 'spki', format: 'der' })
  return { node: createHash('sha256').update(der).digest('base64url'), identity }
}

/** Every file below the directory that holds a private key in the clear. */
async function plainKeys(path: string): Promise<string[]> {
  const names = await readdir(path, { recursive: true, withFileTypes: true })
  const files = names
    .filter((name) => name.isFile())
    .map((name) => join(name.parentPath, name.name))
  const found: string[] = []
  for (const file of files) {
    const text = await readFile(file, 'utf8')
    if (/PRIVATE KEY|"d":/.test(text)) found.push(file)
  }
  return found
}

test('keys made under a TPM open with it, and on a copied disk with no other', async () => {
  await using here = await scratch()
  await using tpm = await startSwtpm()
  await using other = await startSwtpm()
  const directory = join(here.path, 'node')
  const { node, identity } = ward()
  let id = ''
  let exchange = {}
  {
    await using opened = await openNodeDirectory(directory, tpm.tcti)
    assert.equal(opened.keeping.kind, 'tpm')
    id = opened.keys.node
    exchange = await new WardKeys(directory, opened.keeping).prepare(node, identity, 1)
  }
  assert.deepEqual(await plainKeys(directory), [])
  {
    await using again = await openNodeDirectory(directory, tpm.tcti)
    assert.equal(again.keys.node, id)
    // The same order gives the same key.
    const same = await new WardKeys(directory, again.keeping).prepare(node, identity, 1)
    assert.deepEqual(same, exchange)
  }
  const copy = join(here.path, 'copy')
  await cp(directory, copy, { recursive: true })
  const elsewhere = { code: 'agent.keys_sealed_elsewhere' }
  await assert.rejects(openNodeDirectory(copy, other.tcti), elsewhere)
  await assert.rejects(openNodeDirectory(copy), elsewhere)
  // Being refused has changed nothing.
  await using original = await openNodeDirectory(copy, tpm.tcti)
  assert.equal(original.keys.node, id)
})

test('a sealed key in the place of another one is found out', async () => {
  await using here = await scratch()
  await using tpm = await startSwtpm()
  const directory = join(here.path, 'node')
  await using opened = await openNodeDirectory(directory, tpm.tcti)
  const keys = new WardKeys(directory, opened.keeping)
  const [one, two] = [ward(), ward()]
  await keys.prepare(one.node, one.identity, 1)
  const key = await keys.prepare(two.node, two.identity, 1)
  const at = ({ node }: { node: string }) => join(directory, 'wards', node, '1.jwk')
  await cp(at(one), at(two))
  await assert.rejects(keys.prepare(two.node, two.identity, 1), { code: 'agent.identity_damaged' })
  assert.ok(key.x !== '')
})

test('keys that were plain before there was a TPM are sealed at the next start', async () => {
  await using here = await scratch()
  await using tpm = await startSwtpm()
  const directory = join(here.path, 'node')
  const { node, identity } = ward()
  let id = ''
  let exchange = {}
  {
    await using plain = await openNodeDirectory(directory)
    assert.equal(plain.keeping.kind, 'file')
    id = plain.keys.node
    exchange = await new WardKeys(directory, plain.keeping).prepare(node, identity, 3)
  }
  assert.equal((await plainKeys(directory)).length, 2)
  {
    await using moved = await openNodeDirectory(directory, tpm.tcti)
    assert.equal(moved.keys.node, id)
    const keys = new WardKeys(directory, moved.keeping)
    await keys.sealPlain()
    assert.deepEqual(await keys.prepare(node, identity, 3), exchange)
  }
  assert.deepEqual(await plainKeys(directory), [])
  await assert.rejects(openNodeDirectory(directory), { code: 'agent.keys_sealed_elsewhere' })
})
