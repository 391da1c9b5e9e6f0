import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import vm from 'node:vm';

import { EdgeVM } from '@edge-runtime/vm';

// The modules of the client run in an edge runtime here: a context with the interfaces of the
// web alone, where neither Node's modules nor its globals exist and no text becomes code.

const url = process.env.STOA_TEST_URL ?? '';

/** Loads a module of the client, and those that it imports, into an edge runtime. */
async function load(context: vm.Context, entry: URL): Promise<vm.Module> {
  const modules = new Map<string, vm.Module>();
  const read = async (address: URL): Promise<vm.Module> => {
    const known = modules.get(address.href);
    if (known) return known;
    const loaded = new vm.SourceTextModule(await readFile(address, 'utf8'), { context, identifier: address.href });
    modules.set(address.href, loaded);
    return loaded;
  };
  const main = await read(entry);
  await main.link((specifier, importer) => {
    assert.match(specifier, /^\.\.?\//, `${importer.identifier} imports ${specifier}: an edge runtime has no such module`);
    return read(new URL(specifier, importer.identifier));
  });
  await main.evaluate();
  return main;
}

/** Runs an async function's body in an edge runtime, with the client's exports as `client`. */
async function run(body: string, given: Record<string, unknown> = {}): Promise<unknown> {
  const edge = new EdgeVM();
  const client = await load(edge.context, new URL('../src/index.js', import.meta.url));
  Object.assign(edge.context, { client: client.namespace, given: JSON.stringify(given) });
  return JSON.parse(await edge.evaluate<Promise<string>>(`(async () => { const input = JSON.parse(given); ${body} })().then((result) => JSON.stringify(result))`));
}

test('an edge runtime has nothing of Node.js', async () => {
  const found = await run(`return ['process', 'require', 'global', 'setImmediate'].filter((name) => typeof globalThis[name] !== 'undefined')`);
  assert.deepEqual(found, []);
  await assert.rejects(run(`return new Function('return 1')()`), /Code generation/);
});

test('the client calls a platform from an edge runtime', { skip: url === '' && 'STOA_TEST_URL is not set' }, async () => {
  const result = await run(
    `
    const visitor = new client.Stoa({ baseUrl: input.url });
    const refused = await visitor.stores.list().catch((e) => e);
    const password = 'SecurePassword123!';
    await visitor.auth.register({ body: { email: 'edge@example.com', password, firstName: 'Ed', lastName: 'Ge', storeName: 'At the Edge' } });
    const { data: tokens } = await visitor.auth.login({ body: { email: 'edge@example.com', password } });
    let renewed = 0;
    const owner = new client.Stoa({ baseUrl: input.url, tokens: { refreshToken: tokens.refreshToken }, onTokens: () => { renewed++; } });
    const names = [];
    for await (const store of client.pages((cursor) => owner.stores.list({ query: { cursor } }))) names.push(store.name);
    return { typed: refused instanceof client.StoaError && client.hasCode(refused, 'token_invalid'), renewed, names };`,
    { url },
  );
  assert.deepEqual(result, { typed: true, renewed: 1, names: ['At the Edge'] });
});

test('an edge runtime verifies a webhook', { skip: !process.env.STOA_TEST_WEBHOOK && 'STOA_TEST_WEBHOOK is not set' }, async () => {
  const webhook = JSON.parse(process.env.STOA_TEST_WEBHOOK ?? '') as { body: string };
  const verified = `return client.verifyWebhook(input).then(() => 'verified', (e) => e.reason)`;
  assert.equal(await run(verified, webhook), 'verified');
  assert.equal(await run(verified, { ...webhook, body: `${webhook.body} ` }), 'signature');
});
