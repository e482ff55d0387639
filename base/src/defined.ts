/** The members of T that may be undefined become optional, the others stay required. */
export type Defined<T extends object> = {
  [K in keyof T as undefined extends T[K] ? never : K]: T[K]
} & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/**
 * The object without members that are undefined: an absent member and one that is undefined are not
 * the same thing to `Object.keys`, to canonical JSON, or to `exactOptionalPropertyTypes`.
 */
export function defined<T extends object>(members: T): Defined<T> {
  const present = Object.entries(members).filter(([, value]) => value !== undefined)
  return Object.fromEntries(present) as Defined<T> // exactly the members that are left
}
