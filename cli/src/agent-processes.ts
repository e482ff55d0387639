import { readdir, readlink } from 'node:fs/promises'
import { resolve } from 'node:path'
import { readIfPresent } from '@holdfast/base'

// The agents that run on this machine, from their own command lines: where they keep their files is
// said there and nowhere else.

export interface AgentProcess {
  directory: string
  device?: string
}

/** The value that an option has in a command line, in either way of writing it. */
function optionOf(words: readonly string[], flag: string): string | undefined {
  const at = words.indexOf(flag)
  if (at >= 0) return words[at + 1]
  return words.find((word) => word.startsWith(`${flag}=`))?.slice(flag.length + 1)
}

/**
 * What `agent serve` was told in a command line, NUL between its words; undefined when that is another
 * program, or nothing was told and the usual directory is meant.
 */
export function agentOf(commandLine: string, workingDirectory: string): AgentProcess | undefined {
  const words = commandLine.split('\0')
  const isAgent = words.some((word, at) => word === 'agent' && words[at + 1] === 'serve')
  const directory = optionOf(words, '--directory')
  if (!isAgent || directory === undefined) return undefined
  const device = optionOf(words, '--device')
  const place = { directory: resolve(workingDirectory, directory) }
  return device === undefined ? place : { ...place, device: resolve(workingDirectory, device) }
}

/** Every agent of this machine that was started with a directory of its own, sorted by that. */
export async function agentProcesses(): Promise<readonly AgentProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(pids.map(agentAt))
  return found
    .flatMap((agent) => agent ?? [])
    .toSorted((a, b) => (a.directory < b.directory ? -1 : 1))
}

async function agentAt(pid: string): Promise<AgentProcess | undefined> {
  try {
    const commandLine = await readIfPresent(`/proc/${pid}/cmdline`, 64 * 1024)
    if (commandLine === undefined) return undefined
    const text = commandLine.toString('utf8')
    return text.includes('agent') ? agentOf(text, await readlink(`/proc/${pid}/cwd`)) : undefined
  } catch {
    return undefined // it has ended, or belongs to somebody else
  }
}
