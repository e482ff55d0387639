import { rename, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'
import { leanBuiltins } from './builtins.ts'

const at = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url))

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
        if (level === 'warn') throw new Error(log.message)
        report(level, log)
      },
    })
    await build.write({
      dir: fresh,
      format: 'esm',
      entryFileNames: '[name].mjs',
      chunkFileNames: '[name]-[hash].mjs',
    })
    await rm(folder, { recursive: true, force: true })
    await rename(fresh, folder)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}
