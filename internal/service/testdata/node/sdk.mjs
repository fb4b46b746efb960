// Makes calls of ImageKit's official SDK, unmodified: one JSON line on standard input
// is one call, its answer is one line on standard output. The address and the key come
// from the environment, as the SDK itself reads them. Ends with its input.
import { createInterface } from 'node:readline';
import ImageKit, { toFile } from '@imagekit/nodejs';

const client = new ImageKit();

async function answer({ call, args }) {
  if (call === 'files.upload') {
    const [{ bytes, ...params }] = args;
    args = [{ ...params, file: await toFile(Buffer.from(bytes, 'base64'), params.fileName) }];
  }
  const path = call.split('.');
  const method = path.pop();
  const resource = path.reduce((at, name) => at[name], client);
  return (await resource[method](...args)) ?? null;
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = await answer(JSON.parse(line)).then(
    (value) => ({ value }),
    (err) => ({ error: String(err), status: err.status }),
  );
  process.stdout.write(JSON.stringify(said) + '\n');
}
