const start = '\u001b'
/** What follows an escape in the colours of this part: styleText's, and dark on light for QR codes. */
const colour = /^\[(?:0|1|2|22|31|32|33|39|30;107)m/
const dangerous = /[^\P{Cc}\n\t]|[\p{Cf}\p{Zl}\p{Zp}]/gu

/**
 * Text for a terminal in which nothing but our own colours and line ends can do anything: names and
 * addresses come from disks and networks, and so do the errors that quote them.
 */
export function harmless(text: string): string {
  const [first = '', ...rest] = text.split(start)
  return rest.reduce((shown, part) => {
    const [code = ''] = colour.exec(part) ?? []
    return `${shown}${code === '' ? '\ufffd' : start + code}${plain(part.slice(code.length))}`
  }, plain(first))
}

function plain(text: string): string {
  return text.replace(dangerous, '\ufffd')
}
