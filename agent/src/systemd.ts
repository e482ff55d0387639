import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfPresent, removeDurable, run, writeDurable } from '@holdfast/base'
import { serviceOfUnit } from './service-unit.ts'
import {
  type PresentUnit,
  parseShow,
  type UnitProperties,
  unitProperties,
} from './services-plan.ts'

// systemd as the agent uses it: unit files in the directory of the running system, which a reboot
// empties, and `systemctl`.

/** systemd runs exactly when this exists (sd_booted(3)). */
const bootedMark = '/run/systemd/system'

export interface Systemd {
  /** The agent's units and how they are. */
  present(): Promise<Map<string, PresentUnit>>
  show(units: readonly string[]): Promise<Map<string, UnitProperties>>
  write(unit: string, text: string): Promise<void>
  remove(unit: string): Promise<void>
  reload(gone: readonly string[]): Promise<void>
  start(units: readonly string[]): Promise<void>
  stop(units: readonly string[]): Promise<void>
  restart(unit: string): Promise<void>
  reboot(): Promise<void>
}

/** systemd, if it is what runs this machine. */
export async function systemdOf(directory = bootedMark): Promise<Systemd | undefined> {
  const runs = await readdir(bootedMark).then(
    () => true,
    () => false,
  )
  return runs ? new RunningSystemd(directory) : undefined
}

class RunningSystemd implements Systemd {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  async present(): Promise<Map<string, PresentUnit>> {
    const names = (await readdir(this.#directory)).filter(
      (name) => serviceOfUnit(name) !== undefined,
    )
    const shown = await this.show(names)
    const texts = names.map(async (name) => {
      const { ActiveState = 'inactive' } = shown.get(name) ?? {}
      const text = await readFile(join(this.#directory, name), 'utf8')
      const begun = await readIfPresent(this.#mark(name), 1024)
      return [
        name,
        { text, active: ActiveState, begun: begun?.toString('utf8') === digest(text) },
      ] as const
    })
    return new Map(await Promise.all(texts))
  }

  /** Says that a unit was started with this text; systemd passes over names of this kind. */
  #mark(unit: string): string {
    return join(this.#directory, `${unit}.begun`)
  }

  async show(units: readonly string[]): Promise<Map<string, UnitProperties>> {
    if (units.length === 0) return new Map()
    const args = ['show', `--property=${unitProperties.join(',')}`, '--', ...units]
    const { stdout } = await run('systemctl', args)
    return parseShow(stdout.toString('utf8'))
  }

  async write(unit: string, text: string): Promise<void> {
    await writeDurable(join(this.#directory, unit), text, { mode: 0o644 })
  }

  async remove(unit: string): Promise<void> {
    await removeDurable(join(this.#directory, unit))
  }

  async reload(gone: readonly string[]): Promise<void> {
    await run('systemctl', ['daemon-reload'])
    // Exit code 1: it has not failed, so there is nothing to forget.
    if (gone.length > 0) await run('systemctl', ['reset-failed', '--', ...gone], { accept: [0, 1] })
  }

  /** Does not wait: a service that does not start is seen by its state, and must not stop the others. */
  async start(units: readonly string[]): Promise<void> {
    await run('systemctl', ['start', '--no-block', '--', ...units])
    for (const unit of units) {
      const text = await readFile(join(this.#directory, unit), 'utf8')
      await writeDurable(this.#mark(unit), digest(text))
    }
  }

  /** Waits until they have ended; systemd kills them after TimeoutStopSec. */
  async stop(units: readonly string[]): Promise<void> {
    for (const unit of units) await removeDurable(this.#mark(unit))
    // Exit code 5: it is not loaded, so it does not run.
    await run('systemctl', ['stop', '--', ...units], { accept: [0, 5] })
  }

  async restart(unit: string): Promise<void> {
    await run('systemctl', ['restart', '--', unit])
  }

  /** By the target itself: `systemctl reboot` needs logind, which an appliance need not have. */
  async reboot(): Promise<void> {
    const args = ['start', 'reboot.target', '--job-mode=replace-irreversibly', '--no-block']
    await run('systemctl', args)
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}
