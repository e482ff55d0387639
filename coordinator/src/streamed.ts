import type { Clock } from '@holdfast/base'

/** Milliseconds that somebody may take to fetch the next part. */
const patience = 60_000

/**
 * Parts as an answer: each is made when the one before has been fetched. Whoever makes them may hold
 * something meanwhile, so that they are given up when nobody fetches, and when nobody is there any more.
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
  const giveUp = async () => void (await parts.return(undefined))
  return new ReadableStream({
    pull: async (controller) => {
      waiting.abort()
      try {
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
