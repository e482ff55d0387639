import { writeDurable } from '@holdfast/base'
import type { Context } from './command.ts'
import type { Input } from './input.ts'
import { splitText } from './parts.ts'

/** Shows a text as the command line asks: `--qr` in the terminal, `--png FILE` as one picture. */
export async function showPictures(
  text: string,
  input: Input,
  context: Context,
): Promise<string[]> {
  const png = input.text('png')
  if (!input.flag('qr') && png === undefined) return []
  const parts = splitText(text)
  if (input.flag('qr')) await showCodes(parts, context)
  if (png === undefined) return []
  await writeDurable(png, await pngOf(parts), { mode: 0o644 })
  return [png]
}

/** Half-block characters, dark on light, so that scanners read it on dark and light terminals. */
async function showCodes(parts: readonly string[], { streams }: Context): Promise<void> {
  const { renderUnicodeCompact } = await import('uqr')
  for (const [index, part] of parts.entries()) {
    const code = renderUnicodeCompact(part, { ecc: 'L', border: 4 })
    const lines = code.split('\n').map((line) => `\u001b[30;107m${line}\u001b[0m`)
    const shown = streams.errIsTerminal ? lines.join('\n') : code
    streams.err(`part ${index + 1} of ${parts.length}\n${shown}`)
  }
}

const modulePixels = 4
const quietModules = 4

/** All codes in one picture, one below the other, with quiet zones. */
async function pngOf(parts: readonly string[]): Promise<Buffer> {
  const [{ encode }, { PNG }] = await Promise.all([import('uqr'), import('pngjs')])
  const codes = parts.map((part) => encode(part, { ecc: 'L', border: quietModules }))
  const width = Math.max(...codes.map(({ size }) => size)) * modulePixels
  const height = codes.reduce((sum, { size }) => sum + size * modulePixels, 0)
  const picture = new PNG({ width, height, colorType: 0 })
  picture.data.fill(0xff)
  let top = 0
  for (const { data, size } of codes) {
    data.forEach((row, y) => {
      row.forEach((dark, x) => {
        if (dark) square(picture, x * modulePixels, top + y * modulePixels)
      })
    })
    top += size * modulePixels
  }
  return PNG.sync.write(picture, { colorType: 0 })
}

function square(picture: { data: Buffer; width: number }, left: number, top: number): void {
  for (let y = top; y < top + modulePixels; y += 1) {
    for (let x = left; x < left + modulePixels; x += 1) {
      picture.data.fill(0, (y * picture.width + x) * 4, (y * picture.width + x) * 4 + 3)
    }
  }
}
