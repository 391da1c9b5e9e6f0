import { events } from './events.js';
import { createClient, createConfig } from './generated/client/index.js';
import { Operations } from './generated/sdk.gen.js';
import type { Tokens } from './generated/types.gen.js';
import { keyed, version } from './keyed.gen.js';
import { ApiKey, Session, type SessionTokens } from './session.js';
import { type Authorizer, type Fetch, send } from './transport.js';

export interface StoaOptions {
  /** The address of the platform, such as https://stoa.example.com, or of a store for its storefront. */
  baseUrl: string;
  /** An API key of a store, or an access token that is not to be renewed. */
  apiKey?: string;
  /**
   * The tokens of a sign-in, or a refresh token alone. They are exchanged for new ones when
   * they expire, once for all concurrent calls.
   */
  tokens?: SessionTokens;
  /** Is called with new tokens, to store them. */
  onTokens?: (tokens: Tokens) => void | Promise<void>;
  /** How often a call is repeated that failed for a transient reason; 3 unless set, 0 for never. */
  retries?: number;
  /** Limits one attempt of a call, in milliseconds; 2 minutes unless set. The call's signal limits it with its retries. */
  timeout?: number;
  /** Stands for the global fetch. */
  fetch?: Fetch;
}

/**
 * A client of one platform for one caller, with a method for each operation of the API:
 *
 *     const stoa = new Stoa({ baseUrl: 'https://stoa.example.com', apiKey });
 *     const { data, response } = await stoa.credits.spend({ body: { amount: '1' } });
 *
 * A method throws a StoaError if the API refuses the call.
 */
export class Stoa extends Operations {
  constructor(options: StoaOptions) {
    super({ client: newClient(options) });
  }
}

function newClient(options: StoaOptions) {
  const baseUrl = checkAddress(options.baseUrl);
  const fetch: Fetch = options.fetch ?? ((request) => globalThis.fetch(request));
  const retries = options.retries ?? 3;
  const transport = { fetch, retries, timeout: options.timeout ?? 120_000, auth: authorizer(options, baseUrl, fetch) };
  const client = createClient(
    createConfig({ baseUrl, fetch: (input: RequestInfo | URL) => send(input as Request, transport), headers: { Accept: 'application/json', 'Stoa-Version': version } }),
  );
  client.setConfig({ throwOnError: true });
  client.interceptors.request.use((request, call) => {
    checkIds(call.path);
    if (keyed.has(`${call.method} ${call.url}`) && !request.headers.has('Idempotency-Key')) {
      request.headers.set('Idempotency-Key', crypto.randomUUID());
    }
    return request;
  });
  // The generated client of event streams neither ends with an error nor connects again at the
  // end of a stream.
  client.sse.get = async (call) => {
    checkIds(call.path);
    const signal = call.signal ?? new AbortController().signal;
    const { url, path, query } = call;
    const connect = (lastEventId: string | undefined) => {
      const request = new Request(client.buildUrl({ url, path, query }), { headers: { Accept: 'text/event-stream', 'Stoa-Version': version }, signal });
      if (lastEventId !== undefined) request.headers.set('Last-Event-ID', lastEventId);
      return send(request, transport);
    };
    return { stream: events(connect, retries, signal) };
  };
  return client;
}

function authorizer(options: StoaOptions, baseUrl: string, fetch: Fetch): Authorizer | undefined {
  if (options.apiKey !== undefined) return new ApiKey(options.apiKey);
  if (options.tokens !== undefined) return new Session(baseUrl, fetch, options.tokens, options.onTokens);
  return undefined;
}

function checkAddress(address: string): string {
  const url = new URL(address);
  if ((url.protocol !== 'https:' && url.protocol !== 'http:') || url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new TypeError('baseUrl is not like https://stoa.example.com');
  }
  return url.href.replace(/\/+$/, '');
}

/** Refuses ids that would make the path of another call. */
function checkIds(path: Record<string, unknown> | undefined): void {
  for (const [name, id] of Object.entries(path ?? {})) {
    if (id === undefined || id === null || id === '' || id === '.' || id === '..') throw new TypeError(`${name} is no id: ${JSON.stringify(id)}`);
  }
}
