'use strict';
// Queues events with the predecessor's client, as it is, and prints its answers: node space_api_events.js URL PROJECT

const { API } = require('space-api-0.19.3');

const [target, project] = process.argv.slice(2);

async function main() {
  const api = new API(project, `${target}/`);
  const answers = {
    now: await api.queueEvent('order', { n: 1 }).apply(),
    later: await api.queueEvent('order', { n: 2 }).delay(1).apply(),
    dated: await api.queueEvent('order', { n: 3 }).date(new Date(Date.now() - 60000)).apply(),
    unknown: await api.queueEvent('unknown', {}).apply(),
    internal: await api.queueEvent('DB_INSERT', {}).apply(),
  };
  process.stdout.write(JSON.stringify(answers));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
