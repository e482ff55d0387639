import type { Clock } from '@holdfast/base'

/** Milliseconds that somebody may take to fetch the next part. */
const patience = 60_000
/** Milliseconds for all of it, however steadily it is fetched. */
const longest = 4 * 60 * 60_000

/**
 * Parts as an answer: each is made when the one before has been fetched. Whoever makes them may hold
 * something meanwhile, so that they are given up when nobody fetches, when nobody is there any more, and
 * when all of it has taken four hours.
 * What fails before the first part is thrown here; what fails later breaks the answer off.
 */
export async function streamed(
  parts: AsyncGenerator<string>,
  clock: Clock,
  report: (error: unknown) => void = () => undefined,
): Promise<ReadableStream<Uint8Array>> {
  let next: IteratorResult<string> | undefined = await parts.next()
  let waiting = new AbortController()
  let isOver = false
  const encoder = new TextEncoder()
  const end = clock.now() + longest
  const giveUp = async () => void (await parts.return(undefined))
  return new ReadableStream({
    pull: async (controller) => {
      waiting.abort()
      try {
        if (clock.now() > end) {
          await giveUp()
          throw new Error('fetching all of it took more than four hours')
        }
        const { done, value } = next ?? (await parts.next())
        next = undefined
        if (isOver) return // whoever fetched it went away meanwhile
        if (done === true) return controller.close()
        controller.enqueue(encoder.encode(value))
      } catch (error) {
        if (!isOver) report(error)
        throw error
      }
      const begun = new AbortController()
      waiting = begun
      const silence = clock.sleep(patience, begun.signal).then(
        async () => {
          controller.error(new Error('nobody fetches the rest'))
          await giveUp()
        },
        () => undefined,
      )
      silence.catch(report)
    },
    cancel: async () => {
      isOver = true
      waiting.abort()
      await giveUp()
    },
  })
}
