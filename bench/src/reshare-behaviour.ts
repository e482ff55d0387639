import { createPrivateKey } from 'node:crypto'
import { canonicalJson, type JsonObject } from '@holdfast/base'
import { bareJwk, generateEcKey } from '@holdfast/crypto'
import { type Instruction, signBody } from '@holdfast/link'
import type { LoadAgent } from './load-agent.ts'

// What an agent answers while wards move: as a guardian it makes a real key, signs it with its identity
// and remembers it; as a ward it takes its new set over at once and reports it. A real ward would first
// change its vault's keyslots and prove them, which is measured by itself (rekey/200).

type Frame<Kind extends Instruction['kind']> = Extract<Instruction, { kind: Kind }>

export class ReshareBehaviour {
  readonly #cluster: string
  /** By guardian, ward and epoch, as it was sent. */
  readonly #keys = new Map<string, { key: JsonObject; signature: string }>()
  /** When each ward proved its last set, milliseconds of this process. */
  readonly proven = new Map<string, number>()

  constructor(cluster: string) {
    this.#cluster = cluster
  }

  act(agent: LoadAgent, frame: Instruction): void {
    if (frame.kind === 'ward') this.#ward(agent, frame)
    if (frame.kind === 'reshare') this.#move(agent, frame)
  }

  #ward(agent: LoadAgent, { action, ward, epoch, id }: Frame<'ward'>): void {
    const { node, key: pem } = agent.facts
    const name = `${node} ${ward} ${epoch}`
    if (action === 'retire') this.#keys.delete(name)
    else {
      const made = this.#keys.get(name) ?? this.#make(pem, node, ward, epoch)
      this.#keys.set(name, made)
      agent.tell({ kind: 'ward-key', ward, epoch, ...made })
    }
    agent.tell({ kind: 'result', command: id, ok: true })
  }

  #make(pem: string, guardian: string, ward: string, epoch: number) {
    const key = JSON.parse(canonicalJson({ ...bareJwk(generateEcKey('P-256')) })) as JsonObject // it was one
    const body = { cluster: this.#cluster, guardian, ward, epoch, key }
    return { key, signature: signBody(createPrivateKey(pem), 'ward-key', body) }
  }

  #move(agent: LoadAgent, { id, epoch, threshold, guardians }: Frame<'reshare'>): void {
    const { report } = agent
    if (epoch > report.epoch) {
      agent.report = { ...report, epoch, threshold, guardians: guardians.map(({ node }) => node) }
      this.proven.set(agent.facts.node, performance.now())
    }
    agent.tell({ kind: 'report', report: agent.report })
    agent.tell({ kind: 'result', command: id, ok: true })
  }
}
