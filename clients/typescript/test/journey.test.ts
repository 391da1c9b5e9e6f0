import assert from 'node:assert/strict';
import http from 'node:http';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { hasCode, pages, Stoa, StoaError, verifyWebhook, type ProvisioningEvent } from '../src/index.js';

// The test of the Go package internal/app starts a platform and runs this against it. It
// follows the path of the README: from registration to the store at its hostname, and on to
// credits and API keys.

const url = process.env.STOA_TEST_URL ?? '';
const password = 'SecurePassword123!';

/** Waits for the mail to a person with a link to a page and returns the token of the link. */
async function mailedToken(to: string, page: string): Promise<string> {
  for (let i = 0; i < 600; i++) {
    const mailbox = await (await fetch(`${url}/dev/mailbox`)).text();
    const mail = mailbox.split('<article').find((text) => text.includes(to)) ?? '';
    const token = new RegExp(`/${page}\\?token=([^"&]+)`).exec(mail)?.[1];
    if (token !== undefined) return decodeURIComponent(token);
    await sleep(100);
  }
  throw new Error(`no mail with a link to ${page}`);
}

/** A fetch that connects to the platform whatever the host is: it stands for DNS. */
async function fetchFromPlatform(request: Request): Promise<Response> {
  const { host, pathname, search } = new URL(request.url);
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    http
      .get({ hostname, port, path: pathname + search, headers: { Host: host } }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('end', () => resolve(new Response(Buffer.concat(chunks), { status: answer.statusCode ?? 0, headers: { 'Content-Type': answer.headers['content-type'] ?? '' } })));
      })
      .on('error', reject);
  });
}

test('the path of the README', { skip: url === '' && 'STOA_TEST_URL is not set' }, async () => {
  const visitor = new Stoa({ baseUrl: url });
  await assert.rejects(visitor.stores.list(), (e) => hasCode(e, 'token_invalid'));

  const { data: registered } = await visitor.auth.register({ body: { email: 'owner@example.com', password, firstName: 'John', lastName: 'Doe', storeName: 'My First Store' } });
  const id = registered.store!.id;
  await visitor.auth.verifyEmail({ body: { token: await mailedToken('owner@example.com', 'verify'), password } });
  const { data: tokens } = await visitor.auth.login({ body: { email: 'owner@example.com', password } });

  // The access token comes by the first exchange of the refresh token.
  const stored: string[] = [];
  const owner = new Stoa({ baseUrl: url, tokens: { refreshToken: tokens.refreshToken }, onTokens: (fresh) => void stored.push(fresh.refreshToken) });
  const { data: account } = await owner.account.get();
  assert.equal(account.user.emailVerified, true);
  assert.equal(stored.length, 1);
  assert.notEqual(stored[0], tokens.refreshToken);

  const connected = await owner.database.connect({ path: { id }, body: { type: 'managed' }, headers: { Prefer: 'wait=0' } });
  assert.equal(connected.response.status, 202);
  const seen: ProvisioningEvent[] = [];
  for await (const event of (await owner.provisioning.events({ path: { id } })).stream) seen.push(event);
  assert.ok(seen.length >= 8);
  assert.deepEqual([seen.at(-1)?.step, seen.at(-1)?.state], [null, 'succeeded']);

  const { data: store, response } = await owner.stores.get({ path: { id } });
  assert.equal(store.status, 'active');
  const edit = () => owner.stores.update({ path: { id }, body: { description: 'Oil & more', settings: { tips: true } }, headers: { 'If-Match': response.headers.get('ETag')! } });
  assert.equal((await edit()).data.profile?.description, 'Oil & more');
  await assert.rejects(edit(), (e) => hasCode(e, 'edit_conflict'));

  const shopper = new Stoa({ baseUrl: `http://my-first-store.localhost:${new URL(url).port}`, fetch: fetchFromPlatform });
  const { data: front } = await shopper.storefront.store();
  assert.deepEqual([front.id, front.description], [id, 'Oil & more']);
  assert.deepEqual((await shopper.storefront.products()).data.data, []);

  const inStore = { 'X-Store-Id': id };
  const { data: purchase } = await owner.purchases.create({ body: { credits: '100' }, headers: inStore });
  const paid = await fetch(`${purchase.checkoutUrl}/pay`, { method: 'POST', redirect: 'manual' });
  assert.equal(paid.status, 303);
  while ((await owner.purchases.get({ path: { id: purchase.id } })).data.status !== 'paid') await sleep(50);
  for (let i = 0; i < 2; i++) {
    // the key makes it one
    const { data: spent } = await owner.credits.spend({ body: { amount: '12.5' }, headers: { ...inStore, 'Idempotency-Key': 'import-1' } });
    assert.deepEqual([spent.balance.balance, spent.transaction?.amount], ['87.5', '-12.5']);
  }
  // Each call has a key of its own.
  for (let i = 0; i < 2; i++) await owner.credits.spend({ body: { serviceKey: 'product_import', quantity: 1 } });
  await assert.rejects(owner.credits.spend({ body: { amount: '1000' } }), (e) => e instanceof StoaError && e.status === 402 && e.code === 'insufficient_credits');
  const entries: string[] = [];
  for await (const entry of pages((cursor) => owner.transactions.list({ query: { cursor, limit: 1 } }))) entries.push(entry.type);
  assert.deepEqual(entries, ['spend', 'spend', 'spend', 'purchase']);

  const { data: made } = await owner.apiKeys.create({ path: { id }, body: { name: 'Shop', scopes: ['credits:spend', 'credits:read'] } });
  const program = new Stoa({ baseUrl: url, apiKey: made.key });
  await program.credits.spend({ body: { amount: '1' } });
  await assert.rejects(program.stores.suspend({ path: { id } }), (e) => hasCode(e, 'forbidden'));
  await owner.apiKeys.delete({ path: { id, keyId: made.id } });
  await assert.rejects(program.credits.balance(), (e) => hasCode(e, 'token_invalid'));

  await owner.auth.logout();
  await assert.rejects(owner.stores.get({ path: { id } }), (e) => hasCode(e, 'session_revoked'));
});

test('a webhook that the library of Standard Webhooks signed', { skip: url === '' && 'STOA_TEST_URL is not set' }, async () => {
  await verifyWebhook(JSON.parse(process.env.STOA_TEST_WEBHOOK ?? ''));
});
