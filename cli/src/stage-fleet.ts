import { createPrivateKey, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import { type ControlPlane, type FleetNode, startControlPlane } from '@holdfast/drills'
import { userRoutes } from '@holdfast/protocol'

// The stage's fleet with nodes: a real coordinator and real agents. Its machines do what a machine
// does by commands of the stage, which documents may use:
//   console-code             prints the code on the console of the machine that nobody has enrolled
//   power-cut node-1         the machine loses its power and comes back
//   power-off node-1, power-on node-1

export interface StageFleetOptions {
  /** Everything of it lies here. */
  home: string
  /** With the holders' keys, NAME.key. */
  work: string
  /** Where its commands are put. */
  bin: string
  program: string
}

const agentMain = fileURLToPath(new URL('../../agent/src/main.ts', import.meta.url))
const holderNames = ['alice', 'bob', 'carol']
const newcomer = 'newcomer'

/** Another user with the role operator, for what needs two people. */
export const secondUser = 'bob'

export class StageFleet implements AsyncDisposable {
  readonly #options: StageFleetOptions
  readonly #plane: ControlPlane
  readonly #stack: AsyncDisposableStack
  #enrolmentPort = 0

  private constructor(
    options: StageFleetOptions,
    plane: ControlPlane,
    stack: AsyncDisposableStack,
  ) {
    this.#options = options
    this.#plane = plane
    this.#stack = stack
  }

  static async start(options: StageFleetOptions): Promise<StageFleet> {
    await using stack = new AsyncDisposableStack()
    const node = process.execPath
    const plane = await startControlPlane({
      directory: join(options.home, 'plane'),
      programs: {
        coordinator: { program: node, args: [options.program, 'coordinator', 'serve', '--json'] },
        agent: { program: node, args: [agentMain] },
      },
      holders: holderNames.map((name) => holderAt(options.work, name)),
      manifest: {
        guardians: { count: 3, threshold: 2, margin: 1 },
        genesis: { peers: 3 },
        users: { admin: { roles: ['admin', 'operator', 'auditor'] }, bob: { roles: ['operator'] } },
        services: { web: { command: ['/usr/bin/sleep', 'infinity'], directory: 'web' } },
      },
    })
    stack.use(plane)
    const fleet = new StageFleet(options, plane, stack.move())
    try {
      await fleet.#prepare()
      return fleet
    } catch (error) {
      await fleet[Symbol.asyncDispose]()
      throw error
    }
  }

  /** The documents' names for what is in it. */
  get names(): readonly (readonly [string, string])[] {
    const { coordinator } = this.#plane
    const first = this.#node('node-1')
    return [
      ['https://fleet.example.com:8443', coordinator.url],
      ['PIN1', coordinator.identity],
      ['node1.example.com:9998', `127.0.0.1:${first.peerPort}`],
      ['new.example.com:9999', `127.0.0.1:${this.#enrolmentPort}`],
      ['NODE1', first.node],
      ['/srv/node-1', first.directory],
      ['/dev/node-1', first.device],
    ]
  }

  /** Where the password of its admin is. */
  get passwordFile(): string {
    return join(this.#plane.directory, 'password')
  }

  /** Puts the coordinator and every machine back to how they were at the start. */
  async reset(): Promise<void> {
    await this.#stopAll()
    for (const [from, to] of this.#kept()) {
      await rm(from, { recursive: true, force: true })
      await run('cp', ['-a', '--sparse=always', to, from])
    }
    await this.#startAll()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }

  async #prepare(): Promise<void> {
    const [first] = await Promise.all([
      this.#plane.startNode('node-1'),
      this.#plane.startNode(newcomer),
    ])
    await this.#plane.client.call(userRoutes.set, {
      params: { name: secondUser },
      body: { password: 'correct horse battery staple' },
    })
    await this.#plane.enrol(first, { invite: await this.#plane.invite(), genesis: true })
    await this.#serveCommands()
    this.#enrolmentPort = await this.#shownPort()
  }

  /** Remembers everything as it is, for `reset`. */
  async keep(): Promise<void> {
    await this.#stopAll()
    await mkdir(this.#template)
    // A copied canary is a touched one, and says so.
    for (const { directory } of this.#plane.nodes) {
      await rm(join(directory, 'backup'), { recursive: true, force: true })
      await rm(join(directory, 'canaries.json'), { force: true })
    }
    for (const [from, to] of this.#kept()) await run('cp', ['-a', '--sparse=always', from, to])
    await this.#startAll()
  }

  get #template(): string {
    return join(this.#options.home, 'template')
  }

  /** Directories that are kept, and where their copies are. */
  #kept(): (readonly [string, string])[] {
    const { coordinator, nodes } = this.#plane
    return [
      [coordinator.directory, join(this.#template, 'coordinator')] as const,
      ...nodes.flatMap(({ name, directory, memory }) => [
        [join(directory, '..'), join(this.#template, name)] as const,
        [memory, join(this.#template, `${name}.memory`)] as const,
      ]),
    ]
  }

  async #stopAll(): Promise<void> {
    const { coordinator, nodes } = this.#plane
    await Promise.all([coordinator.stop(), ...nodes.map((node) => node.stop())])
  }

  async #startAll(): Promise<void> {
    const { coordinator, nodes } = this.#plane
    await Promise.all([coordinator.start(), ...nodes.map((node) => node.start())])
    this.#enrolmentPort = await this.#shownPort()
    await this.#connected('node-1', 'open')
  }

  async #shownPort(): Promise<number> {
    const { address } = await this.#node(newcomer).console()
    return Number(address.split(':')[1])
  }

  /** Waits until the coordinator has heard that a node is in this phase. */
  async #connected(name: string, phase: string): Promise<void> {
    const node = this.#node(name)
    await this.#plane.until(`${name} is connected and ${phase}`, async () => {
      const view = await this.#plane.view(node)
      return view.connected && view.phase === phase ? view : undefined
    })
  }

  #node(name: string): FleetNode {
    const found = this.#plane.nodes.find((node) => node.name === name)
    if (found !== undefined) return found
    throw new Error(`the stage has no node ${name}`)
  }

  async #serveCommands(): Promise<void> {
    const socket = join(this.#options.home, 'stage.sock')
    const server = createServer((request, response) => {
      this.#obey(request).then(
        (text) => response.end(text),
        (error: Error) => response.writeHead(500).end(error.message),
      )
    })
    await new Promise<void>((resolve) => server.listen(socket, resolve))
    this.#stack.defer(() => {
      server.close()
      server.closeAllConnections()
    })
    for (const name of ['console-code', 'power-cut', 'power-off', 'power-on']) {
      const path = join(this.#options.bin, name)
      await writeFile(
        path,
        `#!/bin/sh\nexec curl -sSf --unix-socket '${socket}' "http://stage/${name}/$1"\n`,
      )
      await chmod(path, 0o755)
    }
  }

  async #obey({ url = '' }: IncomingMessage): Promise<string> {
    const [, command, name = ''] = url.split('/')
    if (command === 'console-code') return `${(await this.#node(newcomer).console()).code}\n`
    const node = this.#node(name)
    if (command === 'power-off') {
      await node.kill()
      await this.#plane.until(`${name} is away`, async () => {
        const view = await this.#plane.view(node)
        return view.connected ? undefined : view
      })
    } else if (command === 'power-on') await node.start()
    else {
      await node.cutPower()
      await node.start()
      await this.#connected(name, 'locked')
    }
    return ''
  }
}

function holderAt(folder: string, name: string) {
  const privateKeyPath = join(folder, `${name}.key`)
  const privateKey = createPrivateKey(readFileSync(privateKeyPath))
  const publicKeyPath = join(folder, `${name}.pub`)
  return { name, privateKey, publicKey: createPublicKey(privateKey), privateKeyPath, publicKeyPath }
}
