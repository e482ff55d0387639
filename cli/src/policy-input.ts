import { dirname, isAbsolute, join } from 'node:path'
import { isFault, isObject, type JsonObject, parseJson, readBounded } from '@holdfast/base'
import { mapPins, type PinPolicy, type Policy, parsePolicy } from '@holdfast/seal'
import { cliFault } from './faults.ts'
import type { Input } from './input.ts'
import { readInput } from './streams.ts'

const policyLimit = 1_000_000

/**
 * The policy of a command line, from `--policy FILE` or PIN and CONFIG starting at word `at`. File
 * names inside it (`adv` of tang, `key` of person) are read, relative to the policy's own file.
 * @throws Fault cli.usage, seal.policy_invalid
 */
export async function policyFrom(input: Input, at = 0): Promise<Policy> {
  const file = input.text('policy')
  const [pin, config] = [input.word(at), input.word(at + 1)]
  if (file !== undefined) {
    if (pin !== undefined) throw cliFault('cli.usage', 'give --policy or PIN CONFIG, not both')
    return await readPolicyFile(file)
  }
  if (pin === undefined) {
    throw cliFault('cli.usage', 'no policy is given', {
      hint: `give --policy FILE or PIN CONFIG, such as: tang '{"url":"http://tang1.example.com","thp":"..."}'`,
    })
  }
  const folder = config?.startsWith('@') === true ? dirname(config.slice(1)) : '.'
  const value = config === undefined ? {} : await readConfig(config)
  return await withFiles(parsePolicy(pin, value), folder)
}

/** True when the command line brings a policy. */
export function hasPolicy(input: Input, at = 0): boolean {
  return input.has('policy') || input.word(at) !== undefined
}

/** Reads a policy file. The short form is the configuration of `sss` alone. */
export async function readPolicyFile(file: string): Promise<Policy> {
  const text = (await readInput(file, policyLimit)).toString('utf8')
  const value = parseJson(text, file, policyLimit)
  if (!isObject(value)) throw cliFault('cli.config_invalid', `${file} is not a JSON object`)
  const folder = file === '-' ? '.' : dirname(file)
  if (value.pin === undefined && value.pins !== undefined) {
    return await withFiles(parsePolicy('sss', value), folder)
  }
  const { pin, config = {}, ...rest } = value
  const [extra] = Object.keys(rest)
  if (typeof pin !== 'string' || extra !== undefined) {
    const reason = extra === undefined ? 'it has no "pin"' : `it has an unknown member "${extra}"`
    throw cliFault('cli.config_invalid', `${file} is not a policy: ${reason}`, {
      hint: 'a policy file looks like {"pin":"sss","config":{"t":2,"pins":{"tang":[...]}}}',
    })
  }
  return await withFiles(parsePolicy(pin, config), folder)
}

async function readConfig(config: string): Promise<unknown> {
  if (config === '-') {
    return parseJson((await readInput('-', policyLimit)).toString('utf8'), 'standard input')
  }
  if (config.startsWith('@')) {
    const text = (await readInput(config.slice(1), policyLimit)).toString('utf8')
    return parseJson(text, config.slice(1), policyLimit)
  }
  try {
    return parseJson(config, 'CONFIG', policyLimit)
  } catch (error) {
    if (!isFault(error)) throw error
    throw cliFault('cli.config_invalid', 'CONFIG is not JSON', {
      hint: `quote it for the shell: '{"url":"http://tang1.example.com"}', or write it to a file and give @FILE`,
    })
  }
}

/** Replaces file names in a policy by what the files hold. */
async function withFiles(policy: Policy, folder: string): Promise<Policy> {
  const read = new Map<PinPolicy, PinPolicy>()
  const pins: PinPolicy[] = []
  mapPins(policy, (pin) => {
    pins.push(pin)
    return pin
  })
  for (const pin of pins) read.set(pin, { ...pin, config: await filesRead(pin, folder) })
  return mapPins(policy, (pin) => read.get(pin) ?? pin)
}

async function filesRead({ pin, config }: PinPolicy, folder: string): Promise<JsonObject> {
  const { adv, key } = config
  if (pin === 'tang' && typeof adv === 'string') {
    const text = await readNear(adv, folder)
    return { ...config, adv: parseJson(text, adv, policyLimit) }
  }
  if (pin === 'person' && typeof key === 'string' && !key.includes('-----BEGIN')) {
    const text = await readNear(key.replace(/^@/, ''), folder)
    const parsed = text.trimStart().startsWith('{') ? parseJson(text, key, policyLimit) : text
    return { ...config, key: parsed }
  }
  return config
}

async function readNear(name: string, folder: string): Promise<string> {
  const path = isAbsolute(name) ? name : join(folder, name)
  return (await readBounded(path, policyLimit)).toString('utf8')
}
