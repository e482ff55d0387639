import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { describe, test } from 'node:test'
import { systemClock } from './clock.ts'
import { isFault } from './fault.ts'
import { programMissing, run } from './run.ts'
import { Secret } from './secret.ts'
import { startProgram } from './spawn.ts'

const secretText = 'correct horse battery staple'

/** How many unlinked tmpfs files this process has open. */
function secretFiles(): number {
  return readdirSync('/proc/self/fd').filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).startsWith('/dev/shm/')
    } catch {
      return false // the descriptor that listed the directory
    }
  }).length
}

/** Process ids of `sleep` with this argument. */
function sleepersOf(argument: string): string[] {
  return readdirSync('/proc').filter((name) => {
    try {
      return (
        /^\d+$/.test(name) &&
        readFileSync(`/proc/${name}/cmdline`, 'utf8') === `sleep\0${argument}\0`
      )
    } catch {
      return false // it ended meanwhile
    }
  })
}

describe('run', () => {
  test('gives standard output, standard error and the exit code', async () => {
    const result = await run('sh', ['-c', 'echo out; echo err >&2; exit 3'], { accept: [3] })
    assert.deepEqual(
      { ...result, stdout: result.stdout.toString() },
      { code: 3, truncated: false, stdout: 'out\n', stderr: 'err\n' },
    )
  })

  test('a secret argument arrives by descriptor and is in neither argv nor environ', async () => {
    using secret = Secret.copy(secretText)
    const script = `
      cat "$1"; echo
      tr '\\0' ' ' < /proc/$$/cmdline; echo
      tr '\\0' ' ' < /proc/$$/environ; echo
      ls -l /proc/$$/fd/
      cat "$1"`
    const { stdout } = await run('sh', ['-c', script, 'sh', secret])
    const lines = stdout.toString().split('\n')
    assert.equal(lines.shift(), secretText)
    assert.equal(lines.pop(), secretText, 'it can be read twice')
    assert.equal(lines.join('\n').includes(secretText), false)
    assert.match(lines.join('\n'), /3 -> .*\/dev\/shm\/.*\(deleted\)/)
  })

  test('several secrets keep their order', async () => {
    using one = Secret.copy('one')
    using two = Secret.copy('two')
    const { stdout } = await run('cat', [one, '-', two], { input: Secret.copy('|') })
    assert.equal(stdout.toString(), 'one|two')
  })

  test('cryptsetup takes a secret key file', async () => {
    using secret = Secret.copy(secretText)
    await assert.rejects(
      run('cryptsetup', ['open', '--test-passphrase', '--key-file', secret, '/dev/null']),
      (error: unknown) => isFault(error, 'base.program_failed') && !/key file/i.test(error.message),
    )
  })

  test('a failure names the program and its reason, never the input', async () => {
    using secret = Secret.copy(secretText)
    const failing = run('sh', ['-c', 'cat > /dev/null; echo no such thing >&2; exit 4', secret], {
      input: secret,
    })
    await assert.rejects(failing, (error: unknown) => {
      assert.ok(isFault(error, 'base.program_failed'))
      assert.match(error.message, /^sh cat .*failed: no such thing$|^sh .* failed: no such thing$/)
      assert.equal(JSON.stringify(error).includes(secretText), false)
      return true
    })
  })

  test('a missing program names the Debian package that has it', async () => {
    await assert.rejects(run('holdfast-no-such-program', []), {
      code: 'base.program_missing',
      hint: 'install holdfast-no-such-program',
    })
    const fault = programMissing('clevis-luks-bind')
    assert.ok(isFault(fault))
    assert.equal(fault.hint, 'apt-get install clevis-luks')
  })

  test('what is not a program cannot be started, and says so', async () => {
    await assert.rejects(run('/dev/null', []), { code: 'base.program_failed' })
  })

  test('a program that does not end is killed at its deadline', async () => {
    await assert.rejects(run('sleep', ['1000'], { timeout: 50 }), { code: 'base.program_timeout' })
  })

  test('an abort kills it', async () => {
    const stop = new AbortController()
    const seconds = String(1_000_000 + process.pid) // so that it can be found
    const sleeping = () => sleepersOf(seconds).length
    const running = run('sleep', [seconds], { signal: stop.signal })
    for (let turn = 0; turn < 6000 && sleeping() === 0; turn += 1) await systemClock.sleep(10)
    assert.equal(sleeping(), 1)
    stop.abort()
    await assert.rejects(running, { name: 'AbortError' })
    for (let turn = 0; turn < 6000 && sleeping() > 0; turn += 1) await systemClock.sleep(10)
    assert.equal(sleeping(), 0)
  })

  test('output is bounded', async () => {
    await assert.rejects(run('yes', [], { limit: 10_000 }), {
      code: 'base.program_failed',
      message: 'yes printed more than 10000 bytes and was stopped',
    })
  })

  test('the environment is fixed but for what is given', async () => {
    const { stdout } = await run('env', [], { environment: { TPM2TOOLS_TCTI: 'none' } })
    const names = stdout
      .toString()
      .trim()
      .split('\n')
      .map((line) => line.split('=')[0])
    assert.deepEqual(names.sort(), ['LC_ALL', 'PATH', 'TPM2TOOLS_TCTI'])
  })

  test('leaks no descriptor, also when it fails', async () => {
    using secret = Secret.copy(secretText)
    const wiped = Secret.copy('x')
    wiped[Symbol.dispose]()
    for (let turn = 0; turn < 5; turn += 1) {
      await run('true', [secret])
      await run('false', [secret]).catch(() => undefined)
      await run('holdfast-no-such-program', [secret]).catch(() => undefined)
      await assert.rejects(run('true', [secret, wiped]), { code: 'base.secret_disposed' })
    }
    assert.equal(secretFiles(), 0)
  })
})

describe('startProgram', () => {
  test('resolves with the line that says ready, and disposing stops the program', async () => {
    const script = 'echo booting; echo ready 7; exec sleep 1000'
    const { running, line } = await startProgram('sh', ['-c', script], (text) => /ready/.test(text))
    assert.equal(line, 'ready 7')
    await running[Symbol.asyncDispose]()
    assert.equal(await running.ended, 137)
    await running[Symbol.asyncDispose]()
  })

  test('a program that will not stop is killed', async () => {
    const script = 'trap "" TERM; echo ready; while :; do sleep 0.05; done'
    const { running } = await startProgram('sh', ['-c', script], () => true, { grace: 50 })
    await running[Symbol.asyncDispose]()
    assert.equal(await running.ended, 137)
  })

  test('one that ends first is a fault with its last words', async () => {
    await assert.rejects(
      startProgram('sh', ['-c', 'echo port taken >&2; exit 1'], () => false),
      { code: 'base.program_failed', message: /port taken/ },
    )
    await assert.rejects(
      startProgram('holdfast-no-such-program', [], () => true),
      {
        code: 'base.program_missing',
      },
    )
    await assert.rejects(
      startProgram('sleep', ['1000'], () => true, { readyWithin: 50 }),
      {
        code: 'base.program_timeout',
      },
    )
  })
})

test('a program that prints more than enough can be stopped and its beginning kept', async () => {
  const { stdout, truncated } = await run('yes', ['abc'], { limit: 10_001, overflow: 'stop' })
  assert.equal(truncated, true)
  assert.equal(stdout.length, 10_001)
  assert.ok(stdout.toString('utf8').startsWith('abc\nabc\n'))
  const whole = await run('echo', ['abc'], { limit: 10, overflow: 'stop' })
  assert.deepEqual([whole.truncated, whole.stdout.toString('utf8')], [false, 'abc\n'])
})
