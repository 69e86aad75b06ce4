/** A client of the gateway at `url`, `http://` or `https://`. */
export function connect(url: string, options: ClientOptions): Client

export interface ClientOptions {
  /** The project's id. */
  project: string
  /** The token of the worker, or what makes one: it is asked before each registration, since tokens expire. */
  token?: string | (() => string | Promise<string>)
}

/** Where a gateway is, and as whom its workers come. It holds no connection of its own. */
export class Client {
  constructor(url: string, options: ClientOptions)
  /** Begins to be a worker of `service` with these functions. */
  worker(service: string, functions: Record<string, Handler>, options?: WorkerOptions): Worker
}

/** A function: what it returns is its answer, as JSON; the message of what it throws is told to the caller. */
export type Handler = (params: any, call: Call) => unknown | Promise<unknown>

/** A call as a function sees it. */
export interface Call {
  id: string
  /** The function's name. */
  function: string
  /** Claims of the caller's valid token; without one an empty object. */
  auth: Record<string, any>
  /** Aborted when nobody waits for the answer any more: the caller left, the time is over, or the connection ended. */
  signal: AbortSignal
  /** When nobody waits any more. */
  deadline: Date
}

export interface WorkerOptions {
  /** Calls at once, 1 to 1000; 64 by default. */
  capacity?: number
  /** Told what happens. */
  onEvent?: (event: WorkerEvent) => void
}

export type WorkerEvent =
  | { type: 'registered' }
  /** It comes back by itself. */
  | { type: 'disconnected'; error: Error }
  | { type: 'failed'; function: string; error: unknown }

/** A worker, which has begun. */
export class Worker {
  private constructor()
  /** Settles when it has stopped and its last call has ended. Rejects with a `ConnectionError` where the gateway refuses it. */
  readonly done: Promise<void>
  /** Takes no more calls, and ends when those that it has are answered, or after `grace` milliseconds (30 s by default). */
  stop(options?: { grace?: number }): Promise<void>
}

/** Why a worker is not registered, or not any more. */
export class ConnectionError extends Error {
  /** Of gRPC, such as `UNAVAILABLE`. */
  code: string
  /** Whether another attempt would be refused again. */
  isFinal: boolean
}
