/**
 * The part of the WebAssembly JavaScript interface that this package uses. It is declared here
 * because @types/node has none and TypeScript's own lives in the library for browsers.
 */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array)
    static imports(module: Module): unknown[]
  }
  class Instance {
    constructor(module: Module)
    readonly exports: Readonly<Record<string, unknown>>
  }
  class Global {
    readonly value: unknown
  }
  class Memory {
    readonly buffer: ArrayBuffer
  }
}
