// Drives the emulator with ImageKit's official Node SDK, unmodified: the base URL,
// the key and the webhook secret come from the environment, as the SDK reads them.
import assert from 'node:assert/strict';
import http from 'node:http';
import ImageKit, { toFile } from '@imagekit/nodejs';

const base = process.env.IMAGE_KIT_BASE_URL;
const publicKey = process.env.TEST_PUBLIC_KEY;
const client = new ImageKit();
let steps = 0;

async function step(name, run) {
  try {
    await run();
  } catch (err) {
    err.message = `${name}: ${err.message}`;
    throw err;
  }
  console.log(`ok ${++steps} ${name}`);
}

const refusedWith = (status, message) => (err) => {
  assert.ok(err instanceof ImageKit.APIError, String(err));
  assert.equal(err.status, status);
  if (message) assert.equal(err.error.message, message);
  assert.ok(err.headers.get('x-ik-requestid'));
  return true;
};

// A webhook receiver that keeps what it got.
const received = [];
let wake = () => {};
const receiver = http.createServer((req, res) => {
  const chunks = [];
  req.on('data', (c) => chunks.push(c));
  req.on('end', () => {
    received.push({ headers: req.headers, body: Buffer.concat(chunks).toString('utf8') });
    res.end();
    wake();
  });
});
await new Promise((done) => receiver.listen(0, '127.0.0.1', done));
async function webhook(type, fileId) {
  for (;;) {
    const found = received.find((w) => {
      const event = client.webhooks.unwrap(w.body, { headers: w.headers });
      return event.type === type && (!fileId || event.data.fileId === fileId);
    });
    if (found) return client.webhooks.unwrap(found.body, { headers: found.headers });
    await new Promise((done) => (wake = done));
  }
}
async function settings(patch) {
  const res = await fetch(`${base}/_emulator/settings`, { method: 'PATCH', body: JSON.stringify(patch) });
  assert.equal(res.status, 200, await res.text());
}
await settings({
  rateLimit: { perSecond: 0 },
  writeRateLimit: { perSecond: 0 },
  webhooks: { url: `http://127.0.0.1:${receiver.address().port}/hook` },
});

const png = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);
let file;

await step('upload bytes', async () => {
  file = await client.files.upload({
    file: await toFile(png, 'dot.png'),
    fileName: 'dot.png',
    folder: '/sdk',
    tags: ['one', 'two'],
    useUniqueFileName: false,
    responseFields: ['tags', 'isPrivateFile'],
  });
  assert.match(file.fileId, /^[0-9a-f]{24}$/);
  assert.deepEqual(
    [file.filePath, file.width, file.height, file.size, file.fileType, file.tags, file.isPrivateFile],
    ['/sdk/dot.png', 1, 1, png.length, 'image', ['one', 'two'], false],
  );
});
await step('webhook of the upload', async () => {
  const event = await webhook('file.created', file.fileId);
  assert.equal(event.data.mime, 'image/png');
  assert.ok(event.id && event.created_at);
});
await step('upload base64, data URI and URL', async () => {
  for (const source of [png.toString('base64'), `data:image/png;base64,${png.toString('base64')}`, file.url]) {
    const up = await client.files.upload({ file: source, fileName: 'copy.png', folder: '/sdk' });
    assert.equal(up.size, png.length);
    assert.match(up.name, /^copy_.{9}\.png$/);
  }
});
await step('the URL serves the bytes', async () => {
  const res = await fetch(file.url);
  assert.equal(res.status, 200);
  assert.deepEqual(Buffer.from(await res.arrayBuffer()), png);
});
await step('details', async () => {
  const got = await client.files.get(file.fileId);
  assert.deepEqual([got.type, got.mime, got.tags, got.versionInfo.name], ['file', 'image/png', ['one', 'two'], 'Version 1']);
  assert.match(got.updatedAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  await assert.rejects(client.files.get('598821f949c0a938d57563bd'), refusedWith(404, 'The requested file does not exist.'));
  await assert.rejects(client.files.get('nonsense'), refusedWith(400, 'Your request contains invalid fileId parameter.'));
});
await step('list', async () => {
  assert.equal((await client.assets.list()).length, 4);
  assert.equal((await client.assets.list({ path: '/sdk', sort: 'DESC_CREATED', limit: 1, skip: 3 }))[0].fileId, file.fileId);
  assert.deepEqual((await client.assets.list({ type: 'folder' })).map((f) => f.folderPath), ['/sdk']);
});
await step('search', async () => {
  const found = await client.assets.list({ searchQuery: `type = "file" AND id IN ["${file.fileId}","598821f949c0a938d57563bd"]` });
  assert.deepEqual(found.map((f) => f.fileId), [file.fileId]);
  await assert.rejects(client.assets.list({ searchQuery: 'type =' }), refusedWith(400));
});
await step('custom metadata field', async () => {
  await client.customMetadataFields.create({ name: 'price', label: 'Price', schema: { type: 'Number', minValue: 1 } });
  assert.equal((await client.customMetadataFields.list())[0].name, 'price');
});
await step('update', async () => {
  const got = await client.files.update(file.fileId, { tags: ['three'], customMetadata: { price: 5 }, customCoordinates: '0,0,1,1' });
  assert.deepEqual([got.tags, got.customMetadata, got.customCoordinates], [['three'], { price: 5 }, '0,0,1,1']);
  await assert.rejects(client.files.update(file.fileId, { customMetadata: { price: 0 } }), refusedWith(400, 'Invalid custom metadata.'));
  assert.deepEqual((await webhook('file.updated', file.fileId)).data.tags, ['three']);
});
await step('rename, move and copy', async () => {
  await client.files.rename({ filePath: '/sdk/dot.png', newFileName: 'point.png' });
  await client.files.move({ sourceFilePath: '/sdk/point.png', destinationPath: '/moved' });
  await client.files.copy({ sourceFilePath: '/moved/point.png', destinationPath: '/copied' });
  assert.equal((await client.files.get(file.fileId)).filePath, '/moved/point.png');
  const [copy] = await client.assets.list({ path: '/copied' });
  assert.notEqual(copy.fileId, file.fileId);
  await assert.rejects(client.files.move({ sourceFilePath: '/none.png', destinationPath: '/moved' }), refusedWith(404));
});
await step('versions', async () => {
  const again = await client.files.upload({ file: await toFile(png, 'p.png'), fileName: 'point.png', folder: '/moved', useUniqueFileName: false });
  assert.equal(again.fileId, file.fileId);
  const versions = await client.files.versions.list(file.fileId);
  assert.deepEqual(versions.map((v) => v.type), ['file', 'file-version']);
  const first = versions[1].versionInfo.id;
  assert.equal((await client.files.versions.get(first, { fileId: file.fileId })).versionInfo.name, 'Version 1');
  assert.equal((await client.files.versions.restore(first, { fileId: file.fileId })).versionInfo.id, first);
  await client.files.versions.delete(again.versionInfo.id, { fileId: file.fileId });
  assert.equal((await webhook('file-version.created', file.fileId)).data.versionInfo.name, 'Version 2');
  assert.equal((await webhook('file-version.deleted', file.fileId)).data.versionId, again.versionInfo.id);
});
await step('bulk tags and metadata', async () => {
  const { successfullyUpdatedFileIds } = await client.files.bulk.addTags({ fileIds: [file.fileId], tags: ['bulk'] });
  assert.deepEqual(successfullyUpdatedFileIds, [file.fileId]);
  assert.equal((await client.files.metadata.get(file.fileId)).width, 1);
});
await step('folders', async () => {
  await client.folders.create({ folderName: 'made', parentFolderPath: '/' });
  const { jobId } = await client.folders.rename({ folderPath: '/copied', newFolderName: 'renamed' });
  assert.equal((await client.folders.job.get(jobId)).status, 'Completed');
  await client.folders.copy({ sourceFolderPath: '/renamed', destinationPath: '/made' });
  await client.folders.move({ sourceFolderPath: '/made/renamed', destinationPath: '/deeper' });
  assert.deepEqual((await client.assets.list({ type: 'folder', path: '/deeper' })).map((f) => f.name), ['renamed']);
  await client.folders.delete({ folderPath: '/made' });
});
await step('upload V1 as a browser does', async () => {
  const auth = client.helper.getAuthenticationParameters();
  const form = () => {
    const f = new FormData();
    f.set('file', new Blob([png]), 'browser.png');
    f.set('fileName', 'browser.png');
    f.set('publicKey', publicKey);
    for (const [k, v] of Object.entries(auth)) f.set(k, String(v));
    return { method: 'POST', body: f };
  };
  const res = await fetch(`${base}/api/v1/files/upload`, form());
  assert.equal(res.status, 200);
  assert.equal(res.headers.get('access-control-allow-origin'), '*');
  const again = await fetch(`${base}/api/v1/files/upload`, form());
  assert.equal(again.status, 400);
});
await step('signed URL of a private file', async () => {
  const up = await client.files.upload({ file: await toFile(png, 'x'), fileName: 'private.png', isPrivateFile: true });
  assert.equal((await fetch(up.url)).status, 401);
  const urlEndpoint = up.url.slice(0, -up.filePath.length);
  const signed = client.helper.buildSrc({ urlEndpoint, src: up.filePath, signed: true, expiresIn: 300, transformation: [{ width: 5 }] });
  assert.equal((await fetch(signed)).status, 200, signed);
  assert.equal((await fetch(signed.replace('w-5', 'w-6'))).status, 401);
});
await step('delete and bulk delete', async () => {
  await client.files.delete(file.fileId);
  await assert.rejects(client.files.get(file.fileId), refusedWith(404));
  await webhook('file.deleted', file.fileId);
  const ids = (await client.assets.list({ type: 'file' })).map((f) => f.fileId);
  await assert.rejects(client.files.bulk.delete({ fileIds: [...ids, file.fileId] }), (err) => {
    assert.deepEqual(err.error.missingFileIds, [file.fileId]);
    return refusedWith(404)(err);
  });
  const { successfullyDeletedFileIds } = await client.files.bulk.delete({ fileIds: ids });
  assert.deepEqual(successfullyDeletedFileIds.toSorted(), ids.toSorted());
  assert.equal((await client.assets.list()).length, 0);
});
await step('the SDK retries what the emulator limits', async () => {
  await settings({ rateLimit: { perSecond: 2, burst: 1 } });
  await client.assets.list();
  await client.assets.list();
  await settings({ rateLimit: { perSecond: 0 } });
});
await step('a forged webhook is refused', async () => {
  const { headers, body } = received[0];
  assert.throws(() => client.webhooks.unwrap(body + ' ', { headers }), /No matching signature found/);
  const legacy = headers['x-ik-signature'];
  assert.match(legacy, /^t=\d{13},v1=[0-9a-f]{64}$/);
});
await step('signature vectors W3, W6, W7, W8, W9', async () => {
  const v = JSON.parse(process.env.TEST_VECTORS);
  const now = Date.now;
  Date.now = () => 1767323045_000;
  const accepts = (body, id, signature) => {
    const headers = { 'webhook-id': id, 'webhook-timestamp': '1767323045', 'webhook-signature': signature };
    try {
      client.webhooks.unwrap(body, { headers });
      return true;
    } catch {
      return false;
    }
  };
  assert.deepEqual(
    [
      accepts(v.bodyA, v.idA, v.w3),
      accepts(v.bodyB, v.idB, `${v.w5} ${v.w4}`),
      accepts(v.bodyA, v.idA, `v1,AAAA v1a,xyz ${v.w3}`),
      accepts(v.bodyA, v.idA, v.w3.replace('v1,', 'v2,')),
      accepts(v.bodyA, v.idA, v.w9),
    ],
    [true, true, true, false, false],
  );
  Date.now = now;
});

receiver.close();
receiver.closeAllConnections();
console.log(`done ${steps}`);
