// Where a gateway is, and as whom its workers come.

import { credentials } from '@grpc/grpc-js'

import { Worker } from './worker.js'

/**
 * A client of the gateway at `url`, `http://` or `https://`.
 *
 * @param {string} url
 * @param {import('./index.js').ClientOptions} options
 */
export function connect(url, options) {
  return new Client(url, options)
}

/** Where a gateway is, and as whom its workers come. It holds no connection of its own. */
export class Client {
  /**
   * @param {string} url
   * @param {import('./index.js').ClientOptions} options
   */
  constructor(url, { project, token = '' }) {
    const { protocol, hostname, port, pathname } = new URL(url)
    if (!['http:', 'https:'].includes(protocol) || pathname !== '/') {
      throw new TypeError(`invalid address ${url}: expected http://HOST:PORT or https://HOST:PORT`)
    }
    if (!project) throw new TypeError('project is required')
    const isPlain = protocol === 'http:'
    /** @type {string} */
    this.target = `dns:${hostname}:${port || (isPlain ? 80 : 443)}`
    this.credentials = isPlain ? credentials.createInsecure() : credentials.createSsl()
    /** @type {string} */
    this.project = project
    this.token = token
  }

  /**
   * Begins to be a worker of `service` with these functions.
   *
   * @param {string} service
   * @param {Record<string, import('./index.js').Handler>} functions
   * @param {import('./index.js').WorkerOptions} [options]
   */
  worker(service, functions, options) {
    return new Worker(this, service, functions, options)
  }
}
