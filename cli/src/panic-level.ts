import { cliFault } from './faults.ts'
import type { Input } from './input.ts'

/** The level of a panic; `command` is what its help stands under. @throws Fault cli.usage */
export function levelFrom(input: Input, command: string): 1 | 2 | 3 {
  switch (input.text('level')) {
    case '1':
      return 1
    case '2':
      return 2
    case '3':
      return 3
    default:
      throw cliFault('cli.usage', '--level is missing', {
        hint: `1 locks, 2 destroys the keys, 3 destroys everything; see holdfast ${command} --help`,
      })
  }
}
