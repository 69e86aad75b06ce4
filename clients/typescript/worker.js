// A worker: sessions one after the other, until it is stopped.

import { ConnectionError, Session } from './session.js'

/** Time before the first attempt to come back, which doubles up to the longest. */
const RETRY_FIRST_MS = 100
const RETRY_LONGEST_MS = 10_000
/** How long calls may take to end after a stop. */
const GRACE_MS = 30_000

/** A worker, which has begun. */
export class Worker {
  /** @type {Set<Session>} */
  #sessions = new Set()
  #isStopping = false
  /** Ends the wait for the next attempt. */
  #wake = () => {}
  #done

  /**
   * @param {import('./client.js').Client} client
   * @param {string} service
   * @param {Record<string, import('./index.js').Handler>} functions
   * @param {import('./index.js').WorkerOptions} [options]
   */
  constructor(client, service, functions, { capacity = 64, onEvent = () => {} } = {}) {
    if (Object.keys(functions).length === 0) throw new TypeError('a worker needs a function')
    this.client = client
    this.service = service
    this.functions = new Map(Object.entries(functions))
    this.capacity = capacity
    this.onEvent = onEvent
    this.#done = this.#run()
  }

  /** Settles when it has stopped and its last call has ended. Rejects where the gateway refuses it. */
  get done() {
    return this.#done
  }

  /** Takes no more calls, and ends when those that it has are answered, or when `grace` is over. */
  async stop({ grace = GRACE_MS } = {}) {
    if (!this.#isStopping) {
      this.#isStopping = true
      this.#wake()
      for (const session of this.#sessions) session.drain()
      const timer = setTimeout(() => {
        for (const session of this.#sessions) session.close()
      }, grace)
      const clear = () => clearTimeout(timer)
      this.#done.then(clear, clear)
    }
    return this.#done
  }

  async #run() {
    let delay = RETRY_FIRST_MS
    while (!this.#isStopping) {
      const begin = Date.now()
      try {
        await this.#session()
      } catch (cause) {
        const error = cause instanceof Error ? cause : new Error(String(cause))
        if (error instanceof ConnectionError && error.isFinal) {
          await this.#ended()
          throw error
        }
        if (!this.#isStopping) this.onEvent({ type: 'disconnected', error })
      }
      if (Date.now() - begin > RETRY_LONGEST_MS) delay = RETRY_FIRST_MS
      await this.#wait(delay * (0.5 + Math.random() / 2))
      delay = Math.min(delay * 2, RETRY_LONGEST_MS)
    }
    await this.#ended()
  }

  /** One session, until it ends or the node wants no more calls by it, while it ends those that it has. */
  async #session() {
    const { token } = this.client
    const session = new Session(this, typeof token === 'function' ? await token() : token)
    this.#sessions.add(session)
    const forget = () => this.#sessions.delete(session)
    session.ended.then(forget, forget)
    // A stop may have come meanwhile.
    if (this.#isStopping) session.drain()
    await session.registered
    this.onEvent({ type: 'registered' })
    await session.leaving
  }

  /** Waits until no session has a call any more. */
  async #ended() {
    for (const session of this.#sessions) session.drain()
    await Promise.allSettled([...this.#sessions].map((session) => session.ended))
  }

  /** @param {number} time */
  async #wait(time) {
    if (this.#isStopping) return
    /** @type {NodeJS.Timeout | undefined} */
    let timer
    await new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
      this.#wake = resolve
      timer = setTimeout(resolve, time)
    })
    clearTimeout(timer)
  }
}
