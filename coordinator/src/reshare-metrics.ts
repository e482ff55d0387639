import { Gauge, type Registry } from 'prom-client'
import { currentManifest } from './manifests.ts'
import type { ServerDeps } from './mount.ts'
import { belowMargin, listReshares } from './reshare-shown.ts'

const states = ['planned', 'preparing', 'ordered', 'retiring', 'failed'] as const
/** As the agents' usual heartbeat has it: five of twenty seconds. */
const silence = 100_000

/** Who has too few guardians, and how the moves to others go. */
export function reshareGauges({ coordinator, clock }: ServerDeps, registry: Registry): void {
  const registers = [registry]
  const { store } = coordinator
  const unreachable = () => coordinator.reason === 'storage_unreachable'
  new Gauge({
    name: 'holdfast_coordinator_wards_below_margin',
    help: 'Nodes whose living guardians are fewer than threshold plus margin.',
    registers,
    async collect() {
      const current = unreachable() ? undefined : await currentManifest(coordinator)
      if (current === undefined) return this.reset()
      const liveness = { now: clock.now(), silence }
      this.set((await belowMargin(store.read, current.manifest, liveness)).length)
    },
  })
  new Gauge({
    name: 'holdfast_coordinator_reshares',
    help: 'Nodes that move to other guardians, by state; failed ones have not been tried again yet.',
    labelNames: ['state'],
    registers,
    async collect() {
      if (unreachable()) return this.reset()
      const all = await listReshares(store.read)
      for (const state of states)
        this.set({ state }, all.filter((each) => each.state === state).length)
    },
  })
  new Gauge({
    name: 'holdfast_coordinator_reshare_oldest_seconds',
    help: 'How long the oldest unfinished re-share has been in its state.',
    registers,
    async collect() {
      if (unreachable()) return this.reset()
      const all = (await listReshares(store.read)).filter(({ state }) => state !== 'failed')
      const oldest = Math.min(clock.now(), ...all.map(({ since }) => since))
      this.set((clock.now() - oldest) / 1000)
    },
  })
}
