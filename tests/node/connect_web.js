'use strict';
// Watches rows by grpc-web with the client of browsers, and prints what it is told:
// node connect_web.js URL DESCRIPTORS TOKEN SHORT

const fs = require('fs');
const { createFileRegistry, fromBinary } = require('@bufbuild/protobuf');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const { createClient } = require('@connectrpc/connect');
const { createGrpcWebTransport } = require('@connectrpc/connect-web');

const [baseUrl, descriptors, token, short] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, fs.readFileSync(descriptors)));
const service = registry.getService('perigee.api.v1.Data');
const client = createClient(service, createGrpcWebTransport({ baseUrl }));

const headers = (token) => (token ? { authorization: `Bearer ${token}` } : {});
const json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** What a watch tells, until so much was told; `then` is done after each. The code of the error that ends it. */
async function watch(request, token, wanted, then = async () => {}) {
  const stop = new AbortController();
  const told = [];
  try {
    const all = { project: 'shop', database: 'lab', table: 'note', ...request };
    for await (const { event, position } of client.watch(all, { headers: headers(token), signal: stop.signal })) {
      const row = event.value.row === undefined ? null : json(event.value.row);
      told.push({ kind: event.case, row, position });
      if (told.length === wanted) break;
      await then(told.length);
    }
    stop.abort();
    return { told, code: null };
  } catch (error) {
    return { told, code: error.code };
  }
}

const plain = ({ told }) => told.map(({ kind, row }) => ({ kind, row }));

async function main() {
  const call = { headers: headers(token) };
  const create = (id) =>
    client.create({ project: 'shop', database: 'lab', table: 'note', docs: [{ id, owner: 'ann', text: 'x' }] }, call);
  await create(1);
  const expiring = watch({}, short, Infinity);
  const first = await watch({}, token, 3, (count) => count === 2 && create(2));
  await create(3);
  const resumed = await watch({ after: first.told.at(-1).position }, token, 2);
  const some = await watch({ where: { id: 3 } }, token, 2);
  const denied = await watch({}, '', Infinity);
  const lost = await watch({ table: 'lost' }, token, Infinity);
  const { code: expired } = await expiring;
  const printed = [first, resumed, some].map(plain);
  console.log(JSON.stringify({ printed, codes: [denied.code, lost.code, expired] }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
