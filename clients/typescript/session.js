// One registration of a worker: a stream of `perigee.api.v1.Functions/Work`.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import { Client, Metadata, status } from '@grpc/grpc-js'

import { GatewayMessageSchema, WorkerMessageSchema } from './functions_pb.js'

const PATH = '/perigee.api.v1.Functions/Work'
/** How long the gateway may take to register a worker. */
const REGISTER_TIMEOUT_MS = 10_000
/** The most that a function may answer: a larger message would end the connection, and all calls with it. */
const ANSWER_BYTES = 8 * 1024 * 1024
/** Of the text of an error, which may have what the caller sent in it. */
const ERROR_CHARACTERS = 4096
const CHANNEL = {
  // Parameters of 8 MiB, and claims.
  'grpc.max_receive_message_length': 16 * 1024 * 1024,
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 10_000,
  // Sessions of one process share no connection: the next one may lead to another node.
  'grpc.use_local_subchannel_pool': 1,
}
/** Codes with which another attempt would be refused again. */
const FINAL = new Set([
  status.INVALID_ARGUMENT,
  status.UNAUTHENTICATED,
  status.PERMISSION_DENIED,
  status.NOT_FOUND,
  status.UNIMPLEMENTED,
])

/** Why a worker is not registered, or not any more. */
export class ConnectionError extends Error {
  /**
   * @param {string} code of gRPC, such as `UNAVAILABLE`
   * @param {string} message
   * @param {boolean} isFinal whether another attempt would be refused again
   */
  constructor(code, message, isFinal) {
    super(message)
    this.name = 'ConnectionError'
    this.code = code
    this.isFinal = isFinal
  }
}

/** One registration of a worker, which begins at once. */
export class Session {
  /** Calls that run, by their ids. @type {Map<string, AbortController>} */
  #calls = new Map()
  #isRegistered = false
  #worker
  #client
  #stream
  #timer
  /** @type {(value?: undefined) => void} */
  #isIn = () => {}
  /** @type {(value?: undefined) => void} */
  #leaves = () => {}

  /**
   * @param {import('./worker.js').Worker} worker
   * @param {string} token
   */
  constructor(worker, token) {
    const { client, service, functions, capacity } = worker
    // What the library says of it has the token in it.
    if (/[^!-~]/.test(token)) throw new ConnectionError('UNAUTHENTICATED', 'the token has characters that no token has', true)
    this.#worker = worker
    this.#client = new Client(client.target, client.credentials, CHANNEL)
    const metadata = new Metadata()
    if (token) metadata.set('authorization', `Bearer ${token}`)
    this.#stream = this.#client.makeBidiStreamRequest(PATH, serialize, deserialize, metadata)
    this.#timer = setTimeout(() => this.close(), REGISTER_TIMEOUT_MS)

    /** Settles when it has ended; rejects with a `ConnectionError` where it did not end by itself. @type {Promise<void>} */
    this.ended = new Promise((resolve, reject) => {
      // What went wrong is in the status that follows.
      this.#stream.on('error', () => {})
      this.#stream.on('status', (/** @type {import('@grpc/grpc-js').StatusObject} */ status) => {
        const error = this.#end(status)
        if (error) reject(error)
        else resolve()
      })
    })
    /** Settles when the gateway knows the worker. @type {Promise<void>} */
    this.registered = Promise.race([new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.#isIn = resolve)), this.ended])
    /** Settles when no more calls come by it. @type {Promise<void>} */
    this.leaving = Promise.race([new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.#leaves = resolve)), this.ended])
    // Who waits for one of them needs not wait for the others.
    for (const promise of [this.registered, this.leaving, this.ended]) promise.catch(() => {})

    this.#stream.on('data', (/** @type {import('./functions_pb.js').GatewayMessage} */ { message }) => this.#take(message))
    this.#send({ case: 'register', value: { project: client.project, service, functions: [...functions.keys()], capacity } })
  }

  /** Takes no more calls: it ends when those that it has are answered. */
  drain() {
    if (!this.#isRegistered) return this.close()
    this.#leaves()
    this.#send({ case: 'drain', value: {} })
  }

  /** Ends it and its calls. */
  close() {
    this.#stream.cancel()
  }

  /** @param {import('./functions_pb.js').GatewayMessage['message']} message */
  #take(message) {
    switch (message.case) {
      case 'registered':
        this.#isRegistered = true
        clearTimeout(this.#timer)
        return this.#isIn()
      case 'call':
        return void this.#answer(message.value)
      case 'cancel':
        this.#calls.get(message.value.id)?.abort(new Error('nobody waits for the answer any more'))
        return void this.#calls.delete(message.value.id)
      case 'drain':
        return this.#leaves()
    }
  }

  /** @param {import('./functions_pb.js').Invocation} invocation */
  async #answer({ id, function: name, params, auth, timeout }) {
    const controller = new AbortController()
    const left = timeout ? durationMs(timeout) : 0
    const timer = setTimeout(() => controller.abort(new Error('the time of the call is over')), left)
    this.#calls.set(id, controller)
    let result = new Uint8Array()
    let error = ''
    try {
      const run = this.#worker.functions.get(name)
      if (!run) throw new Error(`function ${name} is not known`)
      const call = { id, function: name, auth: json(auth), signal: controller.signal, deadline: new Date(Date.now() + left) }
      const answer = new TextEncoder().encode(JSON.stringify((await run(json(params), call)) ?? null))
      if (answer.length > ANSWER_BYTES) throw new Error(`the answer is over the limit of ${ANSWER_BYTES} bytes`)
      result = answer
    } catch (cause) {
      error = (cause instanceof Error ? cause.message : String(cause)).slice(0, ERROR_CHARACTERS) || 'the function failed'
      this.#worker.onEvent({ type: 'failed', function: name, error: cause })
    }
    clearTimeout(timer)
    this.#calls.delete(id)
    // The answer to a call that was cancelled or late, or by a stream that has ended, is nobody's.
    if (!controller.signal.aborted) this.#send({ case: 'result', value: { id, result, error } })
  }

  /** @param {import('@bufbuild/protobuf').MessageInitShape<typeof WorkerMessageSchema>['message']} message */
  #send(message) {
    if (this.#stream.writable) this.#stream.write(create(WorkerMessageSchema, { message }))
  }

  /**
   * The stream has ended: why, where it did not end by itself.
   *
   * @param {import('@grpc/grpc-js').StatusObject} ended
   */
  #end({ code, details }) {
    clearTimeout(this.#timer)
    for (const controller of this.#calls.values()) controller.abort(new Error('the connection has ended'))
    this.#calls.clear()
    this.#client.close()
    if (code === status.OK) return undefined
    return new ConnectionError(status[code], details, !this.#isRegistered && FINAL.has(code))
  }
}

/** @param {import('./functions_pb.js').WorkerMessage} message */
function serialize(message) {
  return Buffer.from(toBinary(WorkerMessageSchema, message))
}

/** @param {Buffer} bytes */
function deserialize(bytes) {
  return fromBinary(GatewayMessageSchema, bytes)
}

/** @param {Uint8Array} bytes */
function json(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes))
}
