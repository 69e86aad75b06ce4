'use strict';
// Runs the predecessor's client, as it is, as a worker that other generations of it call, and prints what they are told:
// node space_api_worker.js URL PROJECT TOKEN

const [target, project, token] = process.argv.slice(2);

// The client tells by it that it is registered.
let registered;
const isRegistered = new Promise((resolve) => (registered = resolve));
console.log = (text) => {
  if (text === 'Service started successfully') registered();
  console.error(text);
};

async function main() {
  const url = `${target}/`;
  const worker = new (require('space-api-0.12.1').API)(project, url);
  worker.setToken(token);
  const service = worker.Service('mail');
  const seen = [];
  service.registerFunc('send', (params, auth, answer) => {
    seen.push({ params, auth });
    answer('response', { sent: params.to });
  });
  service.start();
  await isRegistered;

  const told = {};
  for (const version of ['0.12.1', '0.15.0', '0.19.3']) {
    const api = new (require(`space-api-${version}`).API)(project, url);
    const anonymous = await api.call('mail', 'send', { to: `${version} nobody` }, 5000);
    api.setToken(token);
    const known = await api.call('mail', 'send', { to: version }, 5000);
    const missing = await api.call('mail', 'missing', {}, 5000);
    told[version] = { anonymous, known, missing };
  }
  // The client connects again for ever.
  process.stdout.write(JSON.stringify({ told, seen }), () => process.exit(0));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
