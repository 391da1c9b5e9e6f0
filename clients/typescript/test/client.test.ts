import assert from 'node:assert/strict';
import test from 'node:test';

import { hasCode, pages, Stoa, StoaError, type StoaOptions } from '../src/index.js';

type Answer = (request: Request) => Response | Promise<Response>;

/** A platform that answers with the next of several answers, the last one again and again. */
function platform(answers: Answer[], options: Partial<StoaOptions> = {}) {
  const requests: Request[] = [];
  const bodies: string[] = [];
  const stoa = new Stoa({
    baseUrl: 'https://stoa.example.com/',
    fetch: async (request) => {
      const answer = answers[Math.min(requests.length, answers.length - 1)]!;
      requests.push(request);
      bodies.push(await request.clone().text());
      return answer(request);
    },
    ...options,
  });
  return { stoa, requests, bodies };
}

const json = (status: number, body: unknown, headers: Record<string, string> = {}): Answer => () =>
  new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json', ...headers } });
const problem = (status: number, code: string, headers: Record<string, string> = {}): Answer =>
  json(status, { type: 'about:blank', title: 'x', status, detail: 'Correct it.', code, requestId: 'r1' }, { ...headers, 'Content-Type': 'application/problem+json' });
const lost: Answer = () => {
  throw new TypeError('fetch failed');
};
const half: Answer = () =>
  new Response(
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"data":['));
        controller.error(new TypeError('terminated'));
      },
    }),
    { headers: { 'Content-Type': 'application/json' } },
  );
const spend = (stoa: Stoa) => stoa.credits.spend({ body: { amount: '1' } });
const list = (stoa: Stoa) => stoa.stores.list();
const verify = (stoa: Stoa) => stoa.hostnames.verify({ path: { id: 'x', hostname: 'y' } });
const spent = json(200, { balance: { balance: '1' } });
const listed = json(200, { data: [], nextCursor: null });

test('calls are repeated where that is safe', async (t) => {
  const cases: Record<string, { answers: Answer[]; call: (stoa: Stoa) => Promise<unknown>; want: number; fails?: boolean }> = {
    'unavailable, with a key': { answers: [problem(503, 'platform_unavailable'), problem(503, 'platform_unavailable'), spent], call: spend, want: 3 },
    'a lost connection, with a key': { answers: [lost, spent], call: spend, want: 2 },
    'unavailable, a reading': { answers: [() => new Response('<html>', { status: 502 }), listed], call: list, want: 2 },
    'half an answer': { answers: [half, listed], call: list, want: 2 },
    'half an answer, without a key': { answers: [half], call: verify, want: 1, fails: true },
    'unavailable, without a key': { answers: [problem(503, 'platform_unavailable')], call: verify, want: 1, fails: true },
    'too many requests, without a key': { answers: [problem(429, 'rate_limited', { 'Retry-After': '1' }), json(200, {})], call: verify, want: 2 },
    'too long a pause': { answers: [problem(429, 'rate_limited', { 'Retry-After': '3600' })], call: list, want: 1, fails: true },
    'a date as pause': { answers: [problem(503, 'x', { 'Retry-After': 'Mon, 02 Jan 2006 15:04:05 GMT' }), listed], call: list, want: 2 },
    'under way, with a key': { answers: [problem(409, 'idempotency_conflict', { 'Retry-After': '1' }), spent], call: spend, want: 2 },
    'a conflict': { answers: [problem(409, 'idempotency_conflict')], call: spend, want: 1, fails: true },
    refused: { answers: [problem(402, 'insufficient_credits')], call: spend, want: 1, fails: true },
    'always unavailable': { answers: [problem(503, 'platform_unavailable')], call: list, want: 4, fails: true },
    'an upload': {
      answers: [problem(503, 'platform_unavailable')],
      call: (stoa) => stoa.backups.upload({ path: { id: 'x' }, body: new Blob(['archive']) }),
      want: 1,
      fails: true,
    },
  };
  await Promise.all(
    Object.entries(cases).map(([name, c]) =>
      t.test(name, async () => {
        const { stoa, requests, bodies } = platform(c.answers, { apiKey: 'k' });
        if (c.fails) await assert.rejects(c.call(stoa));
        else await c.call(stoa);
        assert.equal(requests.length, c.want);
        assert.equal(new Set(requests.map((r) => r.headers.get('Idempotency-Key'))).size, 1);
        assert.equal(new Set(bodies).size, 1);
        for (const request of requests) assert.equal(request.headers.get('Authorization'), 'Bearer k');
      }),
    ),
  );
});

test('keys are new for each call, and the caller may choose one', async () => {
  const { stoa, requests } = platform([spent]);
  await spend(stoa);
  await spend(stoa);
  await stoa.credits.spend({ body: { amount: '1' }, headers: { 'Idempotency-Key': 'mine', 'X-Store-Id': 's' } });
  await verify(stoa);
  const keys = requests.map((r) => r.headers.get('Idempotency-Key'));
  assert.ok(keys[0] && keys[1] && keys[0] !== keys[1]);
  assert.deepEqual(keys.slice(2), ['mine', null]);
  assert.equal(requests[2]!.headers.get('X-Store-Id'), 's');
});

test('an answer that is an error becomes one with its code', async () => {
  const fields = { type: 'about:blank', title: 'x', status: 422, detail: 'Correct it.', code: 'invalid_request', requestId: 'r1', errors: [{ field: 'name', message: 'is required' }] };
  const error = await spend(platform([json(422, fields)]).stoa).catch((e: unknown) => e);
  assert.equal(hasCode(error, 'internal'), false);
  assert.ok(hasCode(error, 'internal', 'invalid_request'));
  assert.equal(error.message, 'invalid_request: Correct it. (name: is required) [request r1]');
  assert.equal(error.status, 422);
  for (const answer of [
    () => new Response('<html>nothing', { status: 404 }),
    () => new Response(null, { status: 301, headers: { Location: 'https://elsewhere.example.com/' } }),
    () => new Response(new Blob([new Uint8Array(33 << 20)]), { headers: { 'Content-Type': 'application/json' } }),
  ]) {
    const { stoa, requests } = platform([answer]);
    await assert.rejects(list(stoa), (e) => e instanceof StoaError && e.code === '');
    assert.equal(requests.length, 1);
  }
});

test('addresses and ids are checked before anything is sent', async () => {
  for (const baseUrl of ['', 'stoa.example.com', 'ftp://stoa.example.com', 'https://user:secret@stoa.example.com', 'https://stoa.example.com?x=1']) {
    assert.throws(() => new Stoa({ baseUrl }), TypeError);
  }
  const { stoa, requests } = platform([json(200, {})]);
  for (const id of ['', '.', '..']) await assert.rejects(stoa.stores.get({ path: { id } }), TypeError);
  assert.equal(requests.length, 0);
  await stoa.hostnames.verify({ path: { id: '{}/../x?y', hostname: 'a/b' } });
  assert.equal(requests[0]!.url, 'https://stoa.example.com/api/stores/%7B%7D%2F..%2Fx%3Fy/hostnames/a%2Fb/verify');
});

test('the header of an answer is at hand', async () => {
  const { stoa, requests } = platform([json(200, { id: '1' }, { ETag: '"2"' })]);
  const { data, response } = await stoa.stores.update({ path: { id: 'x' }, body: { settings: {} }, headers: { 'If-Match': '"1"' } });
  assert.equal(data.id, '1');
  assert.equal(response.headers.get('ETag'), '"2"');
  assert.equal(requests[0]!.headers.get('If-Match'), '"1"');
});

test('tokens are exchanged once for concurrent calls', async () => {
  let exchanges = 0;
  const stored: string[] = [];
  const { stoa } = platform(
    [
      (request) => {
        if (request.url.endsWith('/api/auth/refresh')) {
          exchanges++;
          return json(200, { accessToken: 'new', refreshToken: 'next', expiresIn: 900 })(request);
        }
        return request.headers.get('Authorization') === 'Bearer new' ? listed(request) : problem(401, 'token_expired')(request);
      },
    ],
    { tokens: { accessToken: 'old', refreshToken: 'first' }, onTokens: (tokens) => void stored.push(tokens.refreshToken) },
  );
  await Promise.all(Array.from({ length: 20 }, () => list(stoa)));
  assert.equal(exchanges, 1);
  assert.deepEqual(stored, ['next']);
});

test('tokens are exchanged when they are missing or about to expire', async (t) => {
  const fresh = (expiresIn: number) => json(200, { accessToken: 'new', refreshToken: 'next', expiresIn });
  const refresh = '/api/auth/refresh';
  const stores = '/api/stores';
  const cases: Record<string, { tokens: { accessToken?: string; refreshToken: string }; answers: Answer[]; want: string[]; fails?: 'session_revoked' }> = {
    'a refresh token alone': { tokens: { refreshToken: 'r' }, answers: [fresh(900), listed], want: [refresh, stores, stores] },
    'before its end': { tokens: { refreshToken: 'r' }, answers: [fresh(5), listed, fresh(900), listed], want: [refresh, stores, refresh, stores] },
    'a lost answer': { tokens: { refreshToken: 'r' }, answers: [lost, fresh(900), listed], want: [refresh, refresh, stores, stores] },
    'a session that ended': {
      tokens: { accessToken: 'a', refreshToken: 'r' },
      answers: [problem(401, 'token_expired'), problem(401, 'session_revoked')],
      want: [stores, refresh, stores],
      fails: 'session_revoked',
    },
  };
  for (const [name, c] of Object.entries(cases)) {
    await t.test(name, async () => {
      const { stoa, requests } = platform(c.answers, { tokens: c.tokens });
      for (let i = 0; i < 2; i++) {
        if (c.fails) await assert.rejects(list(stoa), (e) => hasCode(e, c.fails!));
        else await list(stoa);
      }
      assert.deepEqual(requests.map((r) => new URL(r.url).pathname), c.want);
    });
  }
});

test('pages are read to the end, or not', async () => {
  const { stoa, requests } = platform([
    (request) => {
      const query = new URL(request.url).searchParams;
      assert.equal(query.get('limit'), '2');
      return query.get('cursor') === null
        ? json(200, { data: [{ name: 'a' }, { name: 'b' }], nextCursor: '2&' })(request)
        : json(200, { data: [{ name: 'c' }], nextCursor: null })(request);
    },
  ]);
  const all = () => pages((cursor) => stoa.stores.list({ query: { cursor, limit: 2 } }));
  const names: string[] = [];
  for await (const store of all()) names.push(store.name);
  assert.deepEqual(names, ['a', 'b', 'c']);
  assert.equal(requests.length, 2);
  for await (const _ of all()) break;
  assert.equal(requests.length, 3);
  const endless = platform([json(200, { data: [], nextCursor: 'x' })]);
  await assert.rejects(async () => {
    for await (const _ of pages((cursor) => endless.stoa.stores.list({ query: { cursor } })));
  });
  assert.equal(endless.requests.length, 2);
});

test('a stream of events is followed through a broken connection', async () => {
  const stream = (text: string, broken = false): Answer => () =>
    new Response(
      new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode(text));
          if (broken) setTimeout(() => controller.error(new TypeError('terminated')), 20);
          else controller.close();
        },
      }),
      { headers: { 'Content-Type': 'text/event-stream' } },
    );
  const { stoa, requests } = platform([
    stream(': hello\n\nid: 1\ndata: {"attempt":1,\ndata: "state":"queued"}\n\nid: 2\ndata: {"atte', true),
    stream('id: 2\ndata: {"attempt":2}\n\n'),
    () => new Response(null, { status: 204 }),
  ]);
  const attempts: number[] = [];
  for await (const event of (await stoa.provisioning.events({ path: { id: 'x' } })).stream) attempts.push(event.attempt);
  assert.deepEqual(attempts, [1, 2]);
  assert.deepEqual(requests.map((r) => r.headers.get('Last-Event-ID')), [null, '1', '2']);
  for (const [answer, want] of [
    [stream(''), 2],
    [problem(404, 'store_not_found'), 1],
    [stream('data: x\n\n'), 1],
    [stream('data: ' + 'x'.repeat(2 << 20)), 1],
  ] as const) {
    const p = platform([answer], { retries: 1 });
    await assert.rejects(async () => {
      for await (const _ of (await p.stoa.provisioning.events({ path: { id: 'x' } })).stream);
    });
    assert.equal(p.requests.length, want);
  }
});

test('a stream is followed whose connections end after minutes without an event', async (t) => {
  t.mock.timers.enable({ apis: ['Date'] });
  const stream = (text: string): Answer => () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          t.mock.timers.tick(600_000);
          if (text !== '') controller.enqueue(new TextEncoder().encode(text));
          controller.close();
        },
      }, { highWaterMark: 0 }),
      { headers: { 'Content-Type': 'text/event-stream' } },
    );
  const none = stream('');
  const { stoa, requests } = platform([none, none, none, none, none, stream('data: {"attempt":1}\n\n'), () => new Response(null, { status: 204 })]);
  const attempts: number[] = [];
  for await (const event of (await stoa.provisioning.events({ path: { id: 'x' } })).stream) attempts.push(event.attempt);
  assert.deepEqual(attempts, [1]);
  assert.equal(requests.length, 7);
});

test('a signal ends a call while it waits', async () => {
  const { stoa, requests } = platform([problem(503, 'platform_unavailable', { 'Retry-After': '20' })]);
  await assert.rejects(stoa.stores.list({ signal: AbortSignal.timeout(100) }), { name: 'TimeoutError' });
  assert.equal(requests.length, 1);
  await assert.rejects(stoa.stores.list({ signal: AbortSignal.abort() }), { name: 'AbortError' });
  assert.equal(requests.length, 1);
});

test('an attempt without an answer ends', async () => {
  const hang: Answer = (request) =>
    new Promise((_, reject) => request.signal.addEventListener('abort', () => reject(request.signal.reason as Error)));
  const { stoa, requests } = platform([hang, listed], { timeout: 50 });
  await list(stoa);
  assert.equal(requests.length, 2);
});

test('requests name the version that the client was made for', async () => {
  const { stoa, requests } = platform([listed]);
  await list(stoa);
  assert.match(requests[0]!.headers.get('Stoa-Version') ?? '', /^\d{4}-\d{2}-\d{2}$/);
});
