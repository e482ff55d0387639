import type { Clock } from '@holdfast/base'
import type { AgentFrame, NodeReport } from '@holdfast/protocol/frames'
import type { OpenEvent } from '@holdfast/seal'
import type { AgentEvent, AgentOptions } from './agent-options.ts'
import type { CommandResult } from './commands.ts'
import { serveEnrolment } from './enrolment.ts'
import { forgetNode } from './forget.ts'
import type { LifeEffect, LifeEvent } from './life-event.ts'
import type { LifeState } from './life-state.ts'
import type { NodeDirectory } from './node-directory.ts'
import type { NodeVault } from './node-vault.ts'
import { signReceipt } from './receipt.ts'
import type { UnlockProgress } from './unlock-progress.ts'

// Does what the life has decided, one effect at a time. Every effect bears being done again.

export interface LifeEffectDeps {
  options: AgentOptions
  directory: NodeDirectory
  vault: NodeVault
  progress: UnlockProgress
  state: () => LifeState
  tell: (event: LifeEvent) => Promise<boolean>
  /** Nodes that have this one as a guardian. */
  wards: () => Promise<readonly string[]>
  report: () => Promise<NodeReport>
  /** Kept over reconnections; resolves when a coordinator has it. */
  deliver: (frame: AgentFrame) => Promise<void>
  /** Writes a command's result down. */
  finish: (result: CommandResult) => Promise<CommandResult>
  onEvent: (event: AgentEvent) => void
  onIncident: (code: string, text: string) => void
  /** The identity has gone: this process must end. */
  onForgotten: () => void
  clock: Clock
}

/** How long panic 2 and 3 wait for somebody to take the receipt before the identity goes without. */
const receiptPatience = 10 * 60_000

type Report = LifeEffect & { kind: 'report' }

/** Faults of one guardian that say more than that it is away. */
const accusations: ReadonlyMap<string, string> = new Map([
  ['agent.guardian_lied', 'peer.guardian_lied'],
  ['agent.guardian_reply_invalid', 'peer.guardian_lied'],
  ['agent.ward_key_absent', 'peer.guardian_rolled_back'],
])

export class LifeEffects {
  readonly #deps: LifeEffectDeps
  readonly #accused = new Set<string>()

  constructor(deps: LifeEffectDeps) {
    this.#deps = deps
  }

  async perform(effect: LifeEffect, signal: AbortSignal): Promise<LifeEvent> {
    const { vault } = this.#deps
    switch (effect.kind) {
      case 'open_port':
        return await this.#openPort(signal)
      case 'probe':
        return await vault.probe()
      case 'format':
        await vault.format(effect.enrolment, effect.set, signal)
        return { kind: 'formatted' }
      case 'close':
        await vault.close()
        return { kind: 'closed' }
      case 'unlock':
        return await this.#unlock(signal)
      case 'bind':
        return { kind: 'bound', keyslot: await vault.bind(effect.set, signal) }
      case 'prove':
        await vault.prove(effect.keyslot, effect.reopen, signal)
        return { kind: 'proven' }
      case 'drop':
        await vault.drop(effect.keep, signal)
        return { kind: 'dropped' }
      default:
        return await this.#end(effect, signal)
    }
  }

  async #end(
    effect: Extract<LifeEffect, { kind: 'hand_over' | 'lock' | 'erase' | 'forget' | 'report' }>,
    signal: AbortSignal,
  ): Promise<LifeEvent> {
    const { vault } = this.#deps
    switch (effect.kind) {
      case 'hand_over':
        return await this.#handOver(effect)
      case 'lock':
        await vault.close()
        await vault.end(1, effect.command)
        return { kind: 'closed' }
      case 'erase':
        await vault.end(effect.level, effect.command)
        return { kind: 'erased' }
      case 'forget':
        return await this.#forget(signal)
      case 'report':
        return await this.#report(effect, signal)
      default:
        return effect satisfies never
    }
  }

  async #unlock(signal: AbortSignal): Promise<LifeEvent> {
    const { vault, progress, onEvent } = this.#deps
    progress.begin()
    await vault.unlock(signal, (event) => {
      progress.note(event)
      this.#accuse(event)
      const { state, label, fault } = event
      if (state === 'retrying') onEvent({ kind: 'waiting', text: `${label}: ${fault?.message}` })
    })
    return { kind: 'opened' }
  }

  /** A guardian that answers wrongly is somebody's business at once, and once. */
  #accuse({ pin, label, fault }: OpenEvent): void {
    const code = fault === undefined ? undefined : accusations.get(fault.code)
    if (pin !== 'peer' || fault === undefined || code === undefined) return
    if (this.#accused.has(`${code} ${label}`)) return
    this.#accused.add(`${code} ${label}`)
    this.#deps.onIncident(code, fault.message)
  }

  async #openPort(signal: AbortSignal): Promise<LifeEvent> {
    const { options, directory, vault, onEvent, onIncident, tell, clock } = this.#deps
    const { device, host, enrolmentPort, peerPort, wireguardPort } = options
    await serveEnrolment({
      keys: directory.keys,
      vault,
      device,
      ...(host === undefined ? {} : { host }),
      port: enrolmentPort,
      ports: { peer: peerPort, wireguard: wireguardPort },
      onCode: (code) => onEvent({ kind: 'code', code }),
      onOpen: (port) => onEvent({ kind: 'enrolment_port', port }),
      onWrongOffer: (remote, replaced) => {
        const text = `a wrong offer from ${remote}${replaced ? '; the code was replaced' : ''}`
        onIncident('enrolment.wrong_code', text)
      },
      tell,
      clock,
      signal,
    })
    return { kind: 'closed' }
  }

  /** The coordinator moves the wards before it says leave; here it is only made sure of. */
  async #handOver({ command, force }: LifeEffect & { kind: 'hand_over' }): Promise<LifeEvent> {
    const wards = await this.#deps.wards()
    if (wards.length === 0 || force === true) return { kind: 'handed_over' }
    const message = `${wards.length} nodes still have this one as a guardian`
    const code = 'agent.wards_remain'
    await this.#answer({ kind: 'result', command, ok: false, code, message })
    return { kind: 'handover_refused', text: message }
  }

  async #report(effect: Report, signal: AbortSignal): Promise<LifeEvent> {
    const { task } = this.#deps.state()
    const told = this.#tellReport(effect)
    if (task?.kind !== 'panic' || task.level === 1) {
      await told
      return { kind: 'reported' }
    }
    // Who keeps the coordinator away must not keep the identity alive: the receipt lies on the disk.
    const enough = new AbortController()
    const late = this.#deps.clock.sleep(receiptPatience, AbortSignal.any([signal, enough.signal]))
    try {
      await Promise.race([told, late])
    } finally {
      enough.abort()
      for (const rest of [told, late]) rest.catch(() => undefined)
    }
    return { kind: 'reported' }
  }

  async #tellReport({ what, id }: Report): Promise<void> {
    const { deliver, report } = this.#deps
    const ended = what === 'left' || what === 'wiped' || what === 'locked'
    if (ended && id !== '') await this.#answer(await this.#receiptOf(what, id))
    await deliver({ kind: 'report', report: await report() })
    const ordered = what === 'reshared' || what === 'enrolled'
    if (ordered && id !== '') await deliver({ kind: 'result', command: id, ok: true })
  }

  /** What has been done, signed by the identity that did it. */
  async #receiptOf(what: string, command: string): Promise<CommandResult> {
    const { directory, vault } = this.#deps
    const receipt = await vault.receiptFor(command)
    const signed = await signReceipt(directory.path, directory.keys, command, what, receipt)
    return { kind: 'result', command, ok: true, data: { what, ...signed } }
  }

  /** Never comes back to a process that still has the old identity in its memory. */
  async #forget(signal: AbortSignal): Promise<LifeEvent> {
    const { directory, onForgotten } = this.#deps
    await forgetNode(directory.path)
    onForgotten()
    await new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true })
      if (signal.aborted) resolve()
    })
    return { kind: 'forgotten' }
  }

  async #answer(result: CommandResult): Promise<void> {
    await this.#deps.deliver(await this.#deps.finish(result))
  }
}
