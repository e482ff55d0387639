import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type RunningProgram, type RunResult, run, startProgram } from '@holdfast/base'
import { adminClient } from '@holdfast/keyserver'
import { parseRecoveryRequest, requestDigest } from '@holdfast/seal'
import { bundle } from '../build/bundle.ts'
import { StageCoordinator } from './stage-coordinator.ts'
import { StageFleet, secondUser } from './stage-fleet.ts'
import { endProcessesWith } from './stage-processes.ts'
import { escaped } from './transcript.ts'

// What the tests of this part run commands in: a directory with everything that the examples of
// the help and the documents name, on real key servers and real LUKS2 volumes. Names from the
// documents stand for real things:
//   http://tang1.example.com ..tang3    three key servers, each in its own process
//   /dev/sdb1, /dev/sdc1                image files: owner, automatic and recovery way in
//   /var/lib/tang                       a key directory nobody serves, whose exchange key is KID1
//   DIGEST1                             the digest of request.json, which asks to open /dev/sdb1
//   admin.sock                          the administration socket of the first key server
//   https://fleet.example.com:8443      a running coordinator, logged in to; its identity is PIN1
//   https://new.example.com:8443        one that nobody has claimed; its identity is NEWPIN and its
//                                       directory /srv/new
// Where a text has commands about nodes, the running coordinator is one with nodes (stage-fleet.ts):
//   node-1, NODE1                       a node, and its id; its peer port is node1.example.com:9998,
//                                       its agent's directory /srv/node-1 and its disk /dev/node-1
//   new.example.com:9999                a machine that nobody has enrolled
// `reset` puts the files, the key servers' keys, the coordinators and the nodes back to how they were.

const servers = [1, 2, 3]
const usesCoordinator =
  /holdfast (coordinator|manifest|audit|holder (request|answer|submit|share|prove))\b|\/srv\/new/

const usesFleet = /holdfast (node|status|doctor)\b/
/** Texts with a local fleet of their own mean the nodes of that one. */
const hasOwnFleet = /(^|[$] )(holdfast up|npm start)/m
/** What changes nothing of the fleet that anybody would see later. */
const onlyLooks =
  /^holdfast (node (list|show|status|commands|wait|invites?|services|logs|rehearse|rekey|first-boot|restart|reboot)|status|doctor)\b[^;&|]*(\| jq [^;&|]*('[^']*')?)?$/

/** The documents' names for a coordinator. */
function coordinatorNames(each: StageCoordinator, index: number): [string, string][] {
  if (index === 0)
    return [
      ['https://fleet.example.com:8443', each.url],
      ['PIN1', each.identity],
    ]
  return [
    ['https://new.example.com:8443', each.url],
    ['NEWPIN', each.identity],
    ['/srv/new', each.directory],
  ]
}

export class Stage implements AsyncDisposable {
  readonly root: string
  /** Where commands run. */
  readonly work: string
  readonly environment: Readonly<Record<string, string>>
  /** The program under test: bundled from the sources as they are now. */
  readonly program: string
  #names: readonly (readonly [string, string])[] = []
  readonly #coordinators: StageCoordinator[] = []
  #coordinatorsUsed = false
  #fleet: StageFleet | undefined
  /** The text that is played now has commands about nodes. */
  #withFleet = false
  #fleetChanged = false
  readonly #cleanup = new AsyncDisposableStack()

  private constructor(root: string) {
    this.root = root
    this.work = join(root, 'work')
    this.program = join(root, 'dist', 'holdfast.mjs')
    this.environment = {
      PATH: `${join(root, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin`,
      HOME: join(root, 'work', 'home'),
      HOLDFAST_STATE_DIR: join(root, 'work', 'state'),
      HOLDFAST_RUNTIME_DIR: join(root, 'run'),
      NO_COLOR: '1',
      NODE_COMPILE_CACHE: join(root, 'cache'),
    }
  }

  /** @param volumes make the volumes too, which takes longest */
  static async start(volumes = true): Promise<Stage> {
    const root = await mkdtemp(join(tmpdir(), 'hf-'))
    const stage = new Stage(root)
    stage.#cleanup.defer(() => rm(root, { recursive: true, force: true }))
    const mark = `HOLDFAST_RUNTIME_DIR=${stage.environment.HOLDFAST_RUNTIME_DIR}`
    stage.#cleanup.defer(() => endProcessesWith(mark))
    try {
      await stage.#prepare(volumes)
      return stage
    } catch (error) {
      await stage[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Runs a line of shell with the documents' names replaced; any exit code is an answer. */
  async shell(
    command: string,
    options: { input?: string; timeout?: number } = {},
  ): Promise<RunResult> {
    if (this.#withFleet) this.#fleetChanged ||= !onlyLooks.test(command)
    else if (usesCoordinator.test(command)) this.#coordinatorsUsed = true
    const shell = command.includes('completion zsh') ? 'zsh' : 'bash'
    const first = shell === 'zsh' ? 'autoload -U compinit; compinit -u -D; ' : ''
    return await run(shell, ['-c', `${first}${this.real(command)}`], {
      cwd: this.work,
      environment: this.environment,
      accept: Array.from({ length: 256 }, (_, code) => code),
      timeout: options.timeout ?? 240_000,
      ...(options.input === undefined ? {} : { input: options.input }),
    })
  }

  /** Starts a command that runs until it is stopped, and waits for its first line. */
  async launch(words: readonly string[]): Promise<{ running: RunningProgram; line: string }> {
    return await startProgram(
      process.execPath,
      [this.program, ...words.map((word) => this.real(word))],
      () => true,
      // A local fleet with nodes takes its time on a busy machine, also to end.
      { cwd: this.work, environment: this.environment, readyWithin: 240_000, grace: 240_000 },
    )
  }

  /** Replaces the documents' names by the real ones, in one pass: an id may hold what is a name. */
  real(text: string): string {
    const names = this.#allNames()
    const real = new Map(names.toReversed()) // of two that are alike the first counts
    const anyName = new RegExp(names.map(([from]) => escaped(from)).join('|'), 'g')
    return text.replace(anyName, (from) => real.get(from) ?? from)
  }

  /** Replaces real names by the documents' ones, in what a command printed. */
  documented(text: string): string {
    return this.#allNames()
      .reduce((changed, [from, to]) => changed.replaceAll(to, from), text)
      .replaceAll(`${this.work}/`, '')
  }

  /** The fleet's come first: its coordinator has the name of the one without nodes. */
  #allNames(): readonly (readonly [string, string])[] {
    return this.#withFleet ? [...(this.#fleet?.names ?? []), ...this.#names] : this.#names
  }

  /**
   * Puts every file back to how it was at the start.
   * @param text what is going to be played: it decides whether there are nodes
   */
  async reset(text = ''): Promise<void> {
    this.#withFleet = usesFleet.test(text) && !hasOwnFleet.test(text)
    if (this.#withFleet) await this.#prepareFleet()
    const template = join(this.root, this.#withFleet ? 'template-fleet' : 'template')
    await rm(this.work, { recursive: true, force: true })
    await run('cp', ['-a', '--sparse=always', template, this.work])
    await Promise.all(servers.map((number) => this.#resetServer(number)))
    if (!this.#coordinatorsUsed) return
    await Promise.all(this.#coordinators.map((each) => each.reset()))
    this.#coordinatorsUsed = false
  }

  /** Makes the fleet when it is first needed, and puts it back when somebody has changed it. */
  async #prepareFleet(): Promise<void> {
    if (this.#fleet !== undefined) {
      if (this.#fleetChanged) await this.#fleet.reset()
      this.#fleetChanged = false
      return
    }
    const [home, bin] = [join(this.root, 'with-nodes'), join(this.root, 'bin')]
    const template = join(this.root, 'template')
    await run('cp', ['-a', '--sparse=always', template, `${template}-fleet`])
    const { program } = this
    const fleet = await StageFleet.start({ home, bin, program, work: `${template}-fleet` })
    this.#fleet = this.#cleanup.use(fleet)
    const login = `cd ${template}-fleet && holdfast coordinator login --coordinator https://fleet.example.com:8443 --identity PIN1`
    await this.#must(`${login} --state-dir state --password-file ${fleet.passwordFile}`)
    await this.#must(`${login} --state-dir bob --user ${secondUser} --password-file passphrase`)
    await fleet.keep()
    this.#fleetChanged = false
  }

  /** Gives a key server the keys that it had when the template was made. */
  async #resetServer(number: number): Promise<void> {
    const home = join(this.root, `server${number}`)
    await rm(join(home, 'keys'), { recursive: true, force: true })
    await run('cp', ['-a', join(home, 'template'), join(home, 'keys')])
    await adminClient(join(home, 'a.sock')).reload()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync()
  }

  async #prepare(volumes: boolean): Promise<void> {
    await bundle(join(this.root, 'dist'))
    const bin = join(this.root, 'bin')
    for (const folder of [bin, this.work, join(this.work, 'home/.config/fish/completions')]) {
      await mkdir(folder, { recursive: true, mode: 0o700 })
    }
    const shim = `#!/bin/sh\nexec '${process.execPath}' '${this.program}' "$@"\n`
    await writeFile(join(bin, 'holdfast'), shim, { mode: 0o755 })
    await Promise.all([this.#startServers(), this.#makeHolders()])
    await this.#makePolicies()
    if (volumes) await Promise.all([this.#makeVolumes(), this.#makeCoordinators()])
    await run('cp', ['-a', '--sparse=always', this.work, join(this.root, 'template')])
    for (const number of servers) {
      const home = join(this.root, `server${number}`)
      await run('cp', ['-a', join(home, 'keys'), join(home, 'template')])
    }
  }

  async #startServers(): Promise<void> {
    const started = await Promise.all(
      servers.map(async (number) => {
        const home = join(this.root, `server${number}`)
        await mkdir(home, { mode: 0o700 })
        const socket = join(home, 'a.sock')
        const { running, line } = await this.launch([
          ...['keyserver', 'serve', '--json', '--init', 'P-521', '--port', '0'],
          ...['--directory', join(home, 'keys'), '--admin', socket],
        ])
        this.#cleanup.use(running)
        const { url } = JSON.parse(line) as { url: string } // printed by our own command
        return [`http://tang${number}.example.com`, url, socket] as const
      }),
    )
    this.#names = [
      ...started.map(([name, url]) => [name, url] as const),
      ['/dev/sdb1', join(this.work, 'sdb1')],
      ['/dev/sdc1', join(this.work, 'sdc1')],
      ['/var/lib/tang', join(this.work, 'tang')],
      // As a word or a value; `servers/0/admin.sock` is a file of the local fleet.
      ...[' ', '='].map(
        (mark) => [`${mark}admin.sock`, `${mark}${started[0]?.[2] ?? ''}`] as const,
      ),
      ['/run/holdfast', join(this.root, 'run')],
    ]
  }

  async #makeHolders(): Promise<void> {
    const names = ['alice', 'bob', 'carol']
    await Promise.all(names.map((name) => this.#must(`holdfast holder keygen ${name}`)))
    await this.#must('holdfast holder keygen tech --type p256')
  }

  async #makePolicies(): Promise<void> {
    const file = (name: string, text: string) => writeFile(join(this.work, name), text)
    const tang = [1, 2, 3].map((number) => ({
      url: this.real(`http://tang${number}.example.com`),
      adv: `tang${number}.adv`,
    }))
    const person = ['alice', 'bob', 'carol'].map((name) => ({ name, key: `${name}.pub` }))
    await file('servers.json', JSON.stringify({ t: 2, pins: { tang } }))
    await file('two-of-three.json', JSON.stringify({ t: 2, pins: { tang } }))
    await file('holders.json', JSON.stringify({ t: 2, pins: { person } }))
    await file('secret', 'the secret\n')
    await file('passphrase', 'correct horse battery staple\n')
    await this.#must(
      [1, 2, 3]
        .map((number) => `curl -s http://tang${number}.example.com/adv > tang${number}.adv`)
        .join(' && '),
    )
    await this.#must('holdfast seal --policy servers.json --in secret --out secret.jwe')
    await this.#must('holdfast seal --policy holders.json --in secret --out holders.jwe')
    await this.#must(
      'holdfast inspect --in holders.jwe --export-shares . && openssl pkeyutl -decrypt -inkey bob.key -in bob.wrapped -out bob.share -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256',
    )
  }

  async #makeVolumes(): Promise<void> {
    for (const device of ['/dev/sdb1', '/dev/sdc1']) {
      await this.#must(
        `holdfast vault create ${device} --size 32M --automatic servers.json --recovery holders.json --owner-passphrase-file passphrase --holder-key alice=alice.key --holder-key bob=bob.key`,
      )
    }
    await this.#must(
      'holdfast vault export-request /dev/sdb1 --technician tech.pub --out request.json --png request.png',
    )
    const digest = requestDigest(
      parseRecoveryRequest(await readFile(join(this.work, 'request.json'), 'utf8')),
    )
    this.#names = [...this.#names, ['DIGEST1', digest]]
    await this.#must('holdfast recover answer request.json --digest DIGEST1 --out answer.txt')
    await this.#makeKeyDirectory()
  }

  async #makeCoordinators(): Promise<void> {
    const started = ['fleet', 'new'].map(
      (name) => new StageCoordinator(join(this.root, name), this.program, this.environment),
    )
    for (const each of started) {
      this.#cleanup.use(each)
      this.#coordinators.push(each)
      await each.start()
    }
    this.#names = [...this.#names, ...started.flatMap(coordinatorNames)]
    const keys = Object.fromEntries(['alice', 'bob', 'carol'].map((name) => [name, `@${name}.pub`]))
    const manifest = { version: 1, cluster: 'fleet', holders: { threshold: 2, keys } }
    await writeFile(join(this.work, 'manifest.json'), JSON.stringify(manifest))
    for (const command of [
      `holdfast coordinator claim --coordinator https://fleet.example.com:8443 --identity PIN1 --token-file ${started[0]?.directory}/claim-token --password-file passphrase`,
      'holdfast manifest set manifest.json',
      'holdfast holder answer alice --key alice.key',
      'holdfast holder answer bob --key bob.key',
      'holdfast coordinator backup --out coordinator.backup',
      `jq -n --arg url http://tang1.example.com --slurpfile adv tang1.adv '{$url, adv: $adv[0]}' > tang-way.json`,
    ]) {
      await this.#must(command)
    }
    for (const each of started) await each.keep()
  }

  async #makeKeyDirectory(): Promise<void> {
    const keys = join(this.work, 'tang')
    const { running } = await this.launch([
      ...['keyserver', 'serve', '--init', 'P-256', '--port', '0', '--directory', keys],
    ])
    await running[Symbol.asyncDispose]()
    const { stdout } = await this.#must('holdfast keyserver keys --json --directory /var/lib/tang')
    const { keys: found } = JSON.parse(stdout.toString('utf8')) as {
      keys: { kid: string; use: string }[] // printed by our own command
    }
    const kid = found.find(({ use }) => use === 'exchange')?.kid ?? ''
    this.#names = [...this.#names, ['KID1', kid]]
  }

  async #must(command: string): Promise<RunResult> {
    const result = await this.shell(command)
    if (result.code === 0) return result
    throw new Error(`the stage cannot be prepared: ${command}: ${result.stderr}`)
  }
}
