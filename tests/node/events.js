'use strict';
// Asks over server-sent events by graphql-sse and prints what it gets: node events.js URL TOKEN

const { createClient } = require('graphql-sse');

const [url, token] = process.argv.slice(2);

const headers = token ? { authorization: `Bearer ${token}` } : {};
const client = createClient({ url, headers, retryAttempts: 0 });

/** All results of an operation, or as many as are wanted; `then` is done after each. */
async function results(client, query, wanted = Infinity, then = async () => {}) {
  const got = [];
  for await (const result of client.iterate({ query })) {
    got.push(result);
    if (got.length >= wanted) break;
    await then();
  }
  return got;
}

async function code(client, query) {
  const [result, ...others] = await results(client, query);
  if (others.length > 0) throw new Error(`more than one result: ${query}`);
  return result.errors?.[0].extensions.code ?? null;
}

async function main() {
  const insert = (id) => results(client, `mutation { insert_note(docs: [{id: ${id}}]) { affected } }`);
  const inserted = await insert(1);
  const live = await results(client, 'subscription { note(sort: [id_asc]) { id } }', 2, () => insert(2));
  const anybody = createClient({ url, retryAttempts: 0 });
  const codes = [
    await code(anybody, 'subscription { other { id } }'),
    await code(client, 'subscription { note { lost } }'),
    await code(client, 'subscription { a: note { id } b: note { id } }'),
    await code(client, '{ other { id } }'),
  ];
  const stranger = createClient({ url, headers: { authorization: 'Bearer a.b.c' }, retryAttempts: 0 });
  const forged = await results(stranger, '{ note { id } }').then(() => null, (error) => error.response.status);
  console.log(JSON.stringify({ inserted, live, codes, forged }));
}

main();
