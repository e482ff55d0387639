import { readdir, rename, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'
import { leanBuiltins } from './builtins.ts'

// Bundles the command line into cli/dist: one small entry and a chunk for each group of commands,
// loaded when a command of the group runs. The new folder replaces the old one whole.

const at = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url))

const fresh = at(`.dist-${process.pid}`)
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
  await rm(at('dist'), { recursive: true, force: true })
  await rename(fresh, at('dist'))
} finally {
  await rm(fresh, { recursive: true, force: true })
}
console.log(`cli/dist: ${(await readdir(at('dist'))).length} files`)
