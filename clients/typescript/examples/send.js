import { connect } from '@perigee/client'

const perigee = connect(process.argv[2] ?? 'http://localhost:4122', { project: 'shop', token: process.env.TOKEN })
const worker = perigee.worker('mail', {
  send: async (params, call) => {
    if (!params.to) throw new Error('to is required')
    return { sent: params.to }
  },
})
process.once('SIGTERM', () => worker.stop())
await worker.done
