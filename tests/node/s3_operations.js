'use strict';
// Operations of the S3 protocol with @aws-sdk/client-s3, unmodified: node s3_operations.js ENDPOINT KEY SECRET

const assert = require('assert');
const { Readable } = require('stream');
const s3 = require('@aws-sdk/client-s3');
const { Upload } = require('@aws-sdk/lib-storage');
const { getSignedUrl } = require('@aws-sdk/s3-request-presigner');

const [endpoint, accessKeyId, secretAccessKey] = process.argv.slice(2);
const client = new s3.S3Client({
  endpoint,
  region: 'eu-anywhere-1',
  forcePathStyle: true,
  maxAttempts: 4,
  credentials: { accessKeyId, secretAccessKey },
});
const Bucket = 'files';
const send = (command, input) => client.send(new s3[`${command}Command`]({ Bucket, ...input }));
const refused = (name, promise) => assert.rejects(promise, (error) => assert.equal(error.name, name) ?? true);

async function main() {
  const Key = 'js/a b+é.txt';
  const { ETag } = await send('PutObject', { Key, Body: 'hello', ContentType: 'text/x-own', Metadata: { k: 'v' } });
  const got = await send('GetObject', { Key });
  assert.equal(await got.Body.transformToString(), 'hello');
  assert.deepEqual([got.ETag, got.ContentType, got.Metadata], [ETag, 'text/x-own', { k: 'v' }]);
  const part = await send('GetObject', { Key, Range: 'bytes=1-2' });
  assert.deepEqual([await part.Body.transformToString(), part.ContentRange], ['el', 'bytes 1-2/5']);
  assert.equal((await send('HeadObject', { Key })).ContentLength, 5);
  await refused('NoSuchKey', send('GetObject', { Key: 'js/none' }));
  await refused('NotFound', send('HeadObject', { Key: 'js/none' }));
  await refused('PreconditionFailed', send('PutObject', { Key, Body: 'x', IfNoneMatch: '*' }));
  await send('CopyObject', { Key: 'js/copy', CopySource: `${Bucket}/${encodeURIComponent(Key)}` });

  // A stream, whose size is known: its checksum follows it.
  const stream = Readable.from([Buffer.alloc(100000, 1), Buffer.alloc(100000, 2)], { objectMode: false });
  await send('PutObject', { Key: 'js/stream', Body: stream, ContentLength: 200000 });
  const bytes = await (await send('GetObject', { Key: 'js/stream' })).Body.transformToByteArray();
  assert.deepEqual([bytes.length, bytes[0], bytes[199999]], [200000, 1, 2]);

  const listed = await send('ListObjectsV2', { Prefix: 'js/', MaxKeys: 2 });
  assert.deepEqual([listed.Contents.map((each) => each.Key), listed.IsTruncated], [[Key, 'js/copy'], true]);
  const rest = await send('ListObjectsV2', { Prefix: 'js/', ContinuationToken: listed.NextContinuationToken });
  assert.deepEqual([rest.Contents.map((each) => each.Key), rest.IsTruncated], [['js/stream'], false]);
  const folders = await send('ListObjectsV2', { Delimiter: '/' });
  assert.ok(folders.CommonPrefixes.some((each) => each.Prefix === 'js/'));

  const large = Buffer.alloc(11 << 20, 'abc');
  const upload = new Upload({ client, params: { Bucket, Key: 'js/large', Body: Readable.from([large]) } });
  await upload.done();
  const back = await (await send('GetObject', { Key: 'js/large' })).Body.transformToByteArray();
  assert.ok(large.equals(back));
  const begun = await send('CreateMultipartUpload', { Key: 'js/aborted' });
  const parts = { Key: 'js/aborted', UploadId: begun.UploadId };
  await send('UploadPart', { ...parts, PartNumber: 1, Body: 'x' });
  assert.equal((await send('ListParts', parts)).Parts.length, 1);
  await send('AbortMultipartUpload', parts);
  await refused('NoSuchUpload', send('ListParts', parts));

  const url = await getSignedUrl(client, new s3.GetObjectCommand({ Bucket, Key }), { expiresIn: 60 });
  assert.equal(await (await fetch(url)).text(), 'hello');
  const put = await getSignedUrl(client, new s3.PutObjectCommand({ Bucket, Key: 'js/signed' }), { expiresIn: 60 });
  assert.equal((await fetch(put, { method: 'PUT', body: 'signed' })).status, 200);
  assert.equal(await (await send('GetObject', { Key: 'js/signed' })).Body.transformToString(), 'signed');

  const Delete = { Objects: [{ Key }, { Key: 'js/copy' }, { Key: 'js/none' }] };
  assert.equal((await send('DeleteObjects', { Delete })).Deleted.length, 3);
  await send('DeleteObject', { Key: 'js/large' });
  await refused('NoSuchKey', send('GetObject', { Key: 'js/large' }));
  console.log('done');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
