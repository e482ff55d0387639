import { createRequire, isBuiltin } from 'node:module'
import type { Plugin } from 'rolldown'

const require = createRequire(import.meta.url)
const marker = '\0builtin:'

/**
 * Takes Node's own modules from `process.getBuiltinModule` in the bundle. An `import` of one makes
 * Node evaluate every lazy member it exports: `node:http` alone then loads all of undici for its
 * WebSocket, which takes longer than opening a sealed secret. Members nobody uses are dropped.
 */
export function leanBuiltins(): Plugin {
  return {
    name: 'lean-builtins',
    resolveId: (id, _importer, { kind }) =>
      isBuiltin(id) && kind !== 'require-call' ? `${marker}${id.replace(/^node:/, '')}` : undefined,
    load: (id) => {
      if (!id.startsWith(marker)) return undefined
      const name = id.slice(marker.length)
      const members = Object.keys(require(name)).filter((member) => /^[a-zA-Z_]\w*$/.test(member))
      const lines = members
        .filter((member) => member !== 'default')
        .map((member) => `const m_${member} = /* @__PURE__ */ (() => builtin.${member})()`)
      const names = members
        .filter((member) => member !== 'default')
        .map((member) => `m_${member} as ${member}`)
      return {
        code: [
          `const builtin = /* @__PURE__ */ process.getBuiltinModule('node:${name}')`,
          ...lines,
          `export { ${['builtin as default', ...names].join(', ')} }`,
        ].join('\n'),
        moduleSideEffects: false,
      }
    },
  }
}
