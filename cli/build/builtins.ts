import { createRequire, isBuiltin } from 'node:module'
import type { Plugin } from 'rolldown'

const require = createRequire(import.meta.url)
const marker = '\0builtin:'

/** Modules of which only functions are called: loaded at the first call. */
const calledOnly = ['child_process', 'readline']

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
      const code = calledOnly.includes(name) ? lazyModule(name) : eagerModule(name)
      return { code, moduleSideEffects: false }
    },
  }
}

function membersOf(name: string): string[] {
  const members = Object.keys(require(`node:${name}`))
  return members.filter((member) => /^[a-zA-Z_]\w*$/.test(member) && member !== 'default')
}

function eagerModule(name: string): string {
  const members = membersOf(name)
  return [
    `const builtin = /* @__PURE__ */ process.getBuiltinModule('node:${name}')`,
    ...members.map((member) => `const m_${member} = /* @__PURE__ */ (() => builtin.${member})()`),
    exported(members),
  ].join('\n')
}

function lazyModule(name: string): string {
  const members = membersOf(name)
  const call = `process.getBuiltinModule('node:${name}')`
  return [
    ...members.map((member) => `const m_${member} = (...args) => ${call}.${member}(...args)`),
    `const builtin = { ${members.map((member) => `${member}: m_${member}`).join(', ')} }`,
    exported(members),
  ].join('\n')
}

function exported(members: readonly string[]): string {
  const names = members.map((member) => `m_${member} as ${member}`)
  return `export { ${['builtin as default', ...names].join(', ')} }`
}
