// A transcript: commands and what they are expected to print, as a person sees it in a terminal.
//   $ COMMAND          a line of shell; a line that ends in \ goes on in the next one
//   text               a line of standard output, in order
//   ! text             a line of standard error, in order
//   ? 4                the exit code; 0 when this line is missing
//   # text             a comment, where it stands before the first command or after an empty line
//   -- NAME --         from here on: the content of a file that is there before the first command
// In an expected line `...` stands for any text, and a line that is only `...` for any lines. What a
// command prints on standard output or error is compared only when a line of it is expected, or when
// `strict` is chosen.

export interface Step {
  command: string
  out: string[]
  err: string[]
  code: number
  /** The line of the command in its file, from 1. */
  line: number
}

export interface Transcript {
  steps: Step[]
  files: Map<string, string>
}

/** Parses a scenario file. */
export function parseTranscript(text: string): Transcript {
  const files = new Map<string, string>()
  const steps: Step[] = []
  let file: string | undefined
  let continued = false
  text.split('\n').forEach((line, index) => {
    const marker = /^-- (\S+) --$/.exec(line)
    if (marker?.[1] !== undefined) {
      file = marker[1]
      files.set(file, '')
      return
    }
    if (file !== undefined) {
      files.set(file, `${files.get(file)}${line}\n`)
      return
    }
    const step = steps.at(-1)
    if (continued && step !== undefined) {
      step.command += `\n${line}`
      continued = line.endsWith('\\')
      return
    }
    if (line.startsWith('$ ')) {
      continued = line.endsWith('\\')
      steps.push({ command: line.slice(2), out: [], err: [], code: 0, line: index + 1 })
      return
    }
    if (line === '' || line.startsWith('#') || step === undefined) return
    if (line.startsWith('? ')) step.code = Number(line.slice(2))
    else if (line.startsWith('! ')) step.err.push(line.slice(2))
    else step.out.push(line)
  })
  return { steps, files }
}

/** True when the lines are as expected; `...` stands for anything. */
export function matches(expected: readonly string[], printed: string): boolean {
  const pattern = expected
    .map((line) =>
      line.trim() === '...'
        ? '(?:.*\\n)*?'
        : `${line
            .split(/ *\.\.\. */)
            .map(escaped)
            .join('.*')}\\s*?\\n`,
    )
    .join('')
  const text = printed === '' || printed.endsWith('\n') ? printed : `${printed}\n`
  return new RegExp(`^${pattern}$`).test(text.replaceAll(/[ \t]+\n/g, '\n'))
}

/** A pattern for this very text. */
export function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

/** The ```console blocks of a Markdown page, each with the number of its first line. */
export function consoleBlocks(page: string): { text: string; line: number }[] {
  const blocks: { text: string; line: number }[] = []
  let open: { lines: string[]; line: number } | undefined
  page.split('\n').forEach((line, index) => {
    if (open === undefined) {
      if (line.trim() === '```console') open = { lines: [], line: index + 2 }
    } else if (line.trim() === '```') {
      blocks.push({ text: open.lines.join('\n'), line: open.line })
      open = undefined
    } else open.lines.push(line)
  })
  return blocks
}
