'use strict';
// Follows rows with three generations of the predecessor's client, as they are, and prints what they are told:
// node space_api.js URL PROJECT TOKENS, where TOKENS is JSON: by version a token and one that expires soon

const net = require('net');

// The clients tell of broken connections by it.
console.log = console.error;

const [target, project, tokens] = process.argv.slice(2);
const { hostname, port } = new URL(target);

/** How a database is called by each: the first one knows only kinds. */
const CLIENTS = {
  '0.12.1': { lib: require('space-api-0.12.1'), db: (api) => api.Postgres() },
  '0.15.0': { lib: require('space-api-0.15.0'), db: (api) => api.DB('postgres') },
  '0.19.3': { lib: require('space-api-0.19.3'), db: (api) => api.DB('lab') },
};

/** A proxy whose WebSockets can be cut. */
function proxy() {
  const open = new Set();
  const server = net.createServer((client) => {
    const upstream = net.connect(port, hostname);
    client.once('data', (head) => /upgrade: websocket/i.test(head.toString('latin1')) && open.add(client));
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.pipe(other);
      one.on('error', () => {});
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  const cut = () => [...open].forEach((socket) => socket.destroy());
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve({ url: `http://127.0.0.1:${server.address().port}/`, cut }));
  });
}

/** Callbacks of a live query, and a way to wait for one. */
function follow(query) {
  const told = [];
  const errors = [];
  let wake = () => {};
  const onSnapshot = (docs, type) => {
    const rows = docs.map((doc) => ({ ...doc })).sort((one, other) => one.id.localeCompare(other.id));
    told.push({ type, rows });
    wake();
  };
  const onError = (error) => {
    errors.push(error instanceof Error ? error.message : error);
    wake();
  };
  const subscription = query.subscribe(onSnapshot, onError);
  const until = async (is) => {
    while (!is()) await new Promise((resolve) => (wake = resolve));
  };
  return { told, errors, until, unsubscribe: () => subscription.unsubscribe() };
}

async function ok(request) {
  const { status, data } = await request.apply();
  if (status !== 200) throw new Error(`${status} ${JSON.stringify(data)}`);
}

async function scenario(version, { token, short }) {
  const { lib, db: database } = CLIENTS[version];
  const { API, cond, and } = lib;
  const { url, cut } = await proxy();
  const open = (token) => {
    const api = new API(project, url);
    if (token) api.setToken(token);
    return database(api);
  };
  const id = (name) => `${version}-${name}`;
  const db = open(token);
  const insert = (name, n) => ok(db.insert('todos').doc({ id: id(name), owner: version, n }));
  const change = (name, set) => ok(db.update('todos').where(cond('id', '==', id(name))).set(set));
  const live = (db) => follow(db.liveQuery('todos').where(and(cond('owner', '==', version), cond('n', '>', 0))));

  const expired = live(open(short));
  const denied = live(open());
  await insert('a', 1);
  await insert('b', 2);
  const first = live(db);
  await first.until(() => first.told.some(({ rows }) => rows.length === 2));
  const initial = first.told.at(-1).rows;
  const steps = [];
  const step = async (done) => {
    const before = first.told.length;
    await done;
    await first.until(() => first.told.length > before);
    steps.push(first.told[before]);
  };
  await step(insert('c', 3));
  await step(change('b', { n: 7 }));
  await step(ok(db.delete('todos').where(cond('id', '==', id('c')))));
  await step(change('a', { owner: 'nobody' }));
  first.unsubscribe();
  const count = first.told.length;
  const second = live(db);
  await second.until(() => second.told.some(({ rows }) => rows.length === 1));
  await insert('d', 4);
  await second.until(() => second.told.some(({ rows }) => rows.length === 2));
  const afterUnsubscribe = first.told.length - count;
  // What is written while there is no connection is told by the rows at the beginning of the next one.
  const before = second.told.length;
  cut();
  await insert('e', 5);
  await second.until(() => second.told.slice(before).some(({ rows }) => rows.length === 3));
  const { type, rows: reconnected } = second.told.at(-1);
  await change('e', { n: 6 });
  await second.until(() => second.told.at(-1).type === 'update');
  await denied.until(() => denied.errors.length > 0);
  await expired.until(() => expired.errors.length > 0);
  const [errors, expiredErrors] = [denied.errors, expired.errors];
  return { initial, steps, afterUnsubscribe, type, reconnected, errors, expired: expiredErrors };
}

async function main() {
  const byVersion = JSON.parse(tokens);
  const versions = Object.keys(CLIENTS);
  const results = await Promise.all(versions.map((version) => scenario(version, byVersion[version])));
  const printed = Object.fromEntries(versions.map((version, index) => [version, results[index]]));
  // Clients connect again for ever.
  process.stdout.write(JSON.stringify(printed), () => process.exit(0));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
