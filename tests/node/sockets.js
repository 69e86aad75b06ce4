'use strict';
// Asks over WebSockets by graphql-ws and by subscriptions-transport-ws, which speaks the subprotocol before it, and prints
// what they get: node sockets.js URL TOKEN SHORT

const { createClient } = require('graphql-ws');
const { SubscriptionClient } = require('subscriptions-transport-ws');
const WebSocket = require(require.resolve('ws', { paths: [require.resolve('subscriptions-transport-ws')] }));

const [url, token, short] = process.argv.slice(2);

/** A client of graphql-ws: `run(query, next, end)` begins an operation and returns what ends it. */
function current(token) {
  const connectionParams = token ? { authorization: `Bearer ${token}` } : {};
  const client = createClient({ url, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0 });
  const run = (query, next, end) => client.subscribe({ query }, { next, error: end, complete: () => end(null) });
  return { run, close: () => client.dispose() };
}

/** The same of subscriptions-transport-ws. */
function legacy(token) {
  const connectionParams = token ? { authToken: token } : {};
  const client = new SubscriptionClient(url, { connectionParams, reconnect: false }, WebSocket);
  const run = (query, next, end) =>
    client.request({ query }).subscribe({ next, error: end, complete: () => end(null) }).unsubscribe;
  return { run, close: () => client.close() };
}

/** All results of an operation, or as many as are wanted; `then` is done after each. */
function results({ run }, query, wanted = Infinity, then = async () => {}) {
  return new Promise((resolve, reject) => {
    const got = [];
    const stop = run(
      query,
      (result) => {
        got.push(result);
        if (got.length < wanted) return void then().catch(reject);
        stop();
        resolve(got);
      },
      (failed) => (failed ? reject(failed) : resolve(got)),
    );
  });
}

async function code(client, query) {
  const failed = await results(client, query).then(() => null, (error) => error);
  if (failed?.code) return failed.code;
  return (Array.isArray(failed) ? failed[0] : failed)?.extensions?.code ?? null;
}

async function printed(open, id) {
  const expiring = open(short);
  const expired = code(expiring, 'subscription { other { id } }');
  const client = open(token);
  const insert = (id) => results(client, `mutation { insert_note(docs: [{id: ${id}}]) { affected } }`);
  const inserted = await insert(id);
  const query = `subscription { note(where: {id: {_in: [${id}, ${id + 1}]}}, sort: [id_asc]) { id } }`;
  const live = await results(client, query, 2, () => insert(id + 1));
  const anybody = open();
  const codes = [
    await code(anybody, 'subscription { other { id } }'),
    await code(client, 'subscription { note { lost } }'),
    await code(client, 'subscription { a: note { id } b: note { id } }'),
    await code(client, '{ other { id } }'),
    await expired,
  ];
  const stranger = open('a.b.c');
  const forged = await code(stranger, '{ note { id } }');
  for (const opened of [client, expiring, anybody, stranger]) opened.close();
  return { inserted, live, codes, forged };
}

async function main() {
  const [of, ofOld] = await Promise.all([printed(current, 1), printed(legacy, 11)]);
  console.log(JSON.stringify({ current: of, legacy: ofOld }));
}

main();
