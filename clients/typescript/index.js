// Workers of Perigee: processes that dial in and take calls of functions.

export { Client, connect } from './client.js'
export { ConnectionError } from './session.js'
export { Worker } from './worker.js'
