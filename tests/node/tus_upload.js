'use strict';
// Uploads a file with tus-js-client, through failures of the server, and prints what it learns, a line of JSON each:
// node tus_upload.js ENDPOINT FILE CHUNK METADATA [TOKEN] [PARALLEL]

const fs = require('fs');
const tus = require('tus-js-client');

const [endpoint, file, chunk, metadata, token, parallel] = process.argv.slice(2);
const print = (value) => console.log(JSON.stringify(value));

const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint,
  chunkSize: Number(chunk),
  // Each part is an upload of its own, and the rules want to know its file.
  ...(parallel
    ? { parallelUploads: Number(parallel), metadataForPartialUploads: { path: JSON.parse(metadata).path } }
    : { uploadSize: fs.statSync(file).size }),
  metadata: JSON.parse(metadata),
  headers: token ? { Authorization: `Bearer ${token}` } : {},
  // A server that was killed takes some time to start again.
  retryDelays: Array(40).fill(500),
  onProgress: (sent, total) => print({ sent, total }),
  onError: (error) => {
    print({ error: error.message });
    process.exitCode = 1;
  },
  onSuccess: () => print({ done: upload.url }),
});
upload.start();
