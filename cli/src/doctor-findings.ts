// What the doctor finds, and how it goes about it: layers from the bottom up, each judged from what was
// seen. Pure; what is seen is gathered elsewhere. After a failed layer the ones that rest on it are not
// looked at, because their trouble would be its echo.

export type State = 'ok' | 'warning' | 'failed' | 'not looked at'

export interface Judged {
  state: State
  /** What was seen, and for a failed layer what is missing. */
  text: string
  /** Commands to type next, the first one first. */
  next?: readonly string[]
}

export interface Finding extends Judged {
  layer: string
}

/** A layer: judges what was seen, or says nothing when it was not. */
export interface Rule<Seen> {
  layer: string
  /** Judged even when a layer below has failed. */
  independent?: true
  judge: (seen: Seen) => Judged | undefined
}

export interface Diagnosis {
  /** What was looked at. */
  subject: string
  verdict: 'healthy' | 'warned' | 'failed'
  findings: readonly Finding[]
}

export function ok(text: string): Judged {
  return { state: 'ok', text }
}

export function warning(text: string, ...next: readonly string[]): Judged {
  return { state: 'warning', text, next }
}

export function failed(text: string, ...next: readonly string[]): Judged {
  return { state: 'failed', text, next }
}

export function notLookedAt(text: string): Judged {
  return { state: 'not looked at', text }
}

/**
 * Judges layer by layer.
 * @param below what was found of the layers that these rest on
 */
export function examine<Seen>(
  rules: readonly Rule<Seen>[],
  seen: Seen,
  below: readonly Finding[] = [],
): Finding[] {
  const findings: Finding[] = []
  let broken = below.find(({ state }) => state === 'failed')?.layer
  for (const { layer, independent, judge } of rules) {
    const judged =
      broken !== undefined && independent !== true
        ? notLookedAt(`rests on ${broken}`)
        : (judge(seen) ?? notLookedAt('nothing was seen of it'))
    if (judged.state === 'failed') broken ??= layer
    findings.push({ layer, ...judged })
  }
  return findings
}

/** Puts the findings of several parts of one look together; a failed part leaves the next unseen. */
export function diagnosis(subject: string, ...parts: readonly (readonly Finding[])[]): Diagnosis {
  const findings = parts.flat()
  const has = (state: State) => findings.some((finding) => finding.state === state)
  const verdict = has('failed') ? 'failed' : has('warning') ? 'warned' : 'healthy'
  return { subject, verdict, findings }
}

export function isBroken(findings: readonly Finding[]): boolean {
  return findings.some(({ state }) => state === 'failed')
}

/** What came of trying something. */
export type Attempt<T> = { ok: true; value: T } | { ok: false; code: string; message: string }

/** Some names, not all of them when they are many. */
export function names(all: readonly string[], most = 5, between = ', '): string {
  const shown = all.slice(0, most).join(between)
  return all.length > most ? `${shown} and ${all.length - most} more` : shown
}
