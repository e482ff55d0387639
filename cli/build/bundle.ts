import { rename, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'
import { leanBuiltins } from './builtins.ts'

const at = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url))

const coreModules =
  /\/(base|crypto|seal)\/(src\/(?!log\.ts)|generated\/)|\/cli\/src\/(run-command|fleet-state|quick-parse|streams|terminal|seal-\w+|options|output|policy-input|pins|holders|describe|input|exit-codes|faults)\.ts$|node_modules\/jose\//

/**
 * Bundles the command line into a folder: `holdfast.mjs`, and a chunk for each group of commands
 * that is loaded when a command of the group runs. The new folder replaces the old one whole.
 */
export async function bundle(folder: string): Promise<void> {
  const fresh = `${folder}.${process.pid}`
  try {
    await using build = await rolldown({
      input: { holdfast: at('src/main.ts') },
      platform: 'node',
      cwd: at(''),
      plugins: [leanBuiltins()],
      onLog: (level, log, report) => {
        // That a lazy import is eager elsewhere too costs nothing; any other warning is a defect.
        const harmless = log.code === 'INEFFECTIVE_DYNAMIC_IMPORT'
        if (level === 'warn' && !harmless) throw new Error(log.message)
        if (!harmless) report(level, log)
      },
    })
    await build.write({
      dir: fresh,
      format: 'esm',
      entryFileNames: '[name].mjs',
      chunkFileNames: '[name]-[hash].mjs',
      // What opening a secret needs comes in one file: each further one costs most of a millisecond.
      codeSplitting: {
        groups: [
          { name: 'start', test: /builtin:(path|os|url)$/, priority: 2 },
          { name: 'core', test: coreModules, priority: 1 },
        ],
      },
    })
    await rm(folder, { recursive: true, force: true })
    await rename(fresh, folder)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}
