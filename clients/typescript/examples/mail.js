// A worker: node mail.js URL PROJECT TOKEN

import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from '@perigee/client'

const [url, project, token] = process.argv.slice(2)

const worker = connect(url, { project, token }).worker(
  'mail',
  {
    send(params, call) {
      if (!params.to) throw new Error('to is required')
      return { sent: params.to, by: call.auth.id ?? null }
    },
    async later(params, call) {
      console.log('later: begun')
      try {
        await sleep(params.seconds * 1000, undefined, { signal: call.signal })
      } catch {
        console.log('later: cancelled')
        throw call.signal.reason
      }
      return { left: call.deadline.getTime() - Date.now() }
    },
  },
  { onEvent: (event) => console.log(event.type) },
)

process.once('SIGTERM', () => worker.stop())
worker.done.catch((error) => {
  console.error(`${error.code}: ${error.message}`)
  process.exitCode = 1
})
