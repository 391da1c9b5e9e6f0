import { readBody, readError, StoaError } from './errors.js';

const firstPause = 250; // milliseconds
const longestPause = 30_000;
const longestAnswer = 32 << 20; // bytes of a JSON answer

/** Sends a request once. It has the signature of fetch. */
export type Fetch = (request: Request) => Promise<Response>;

/** Has the access token of a caller. */
export interface Authorizer {
  token(): Promise<string>;
  /** Replaces the token used, which has expired. It fails with refused if there is no way to. */
  renew(used: string, refused: StoaError): Promise<void>;
}

export interface TransportOptions {
  fetch: Fetch;
  retries: number;
  timeout: number;
  auth?: Authorizer | undefined;
  /** Repeat a call of any method. */
  safe?: boolean;
}

/**
 * Sends a request, repeats it where that is safe, and returns an answer of success. It throws
 * a StoaError for every other answer.
 */
export async function send(request: Request, o: TransportOptions): Promise<Response> {
  // Not every browser has Request.body.
  const type = request.headers.get('Content-Type');
  const stream = type !== null && !type.startsWith('application/json');
  let renewed = false;
  for (let attempt = 0; ; attempt++) {
    const token = await o.auth?.token();
    request.signal.throwIfAborted();
    try {
      return await sendOnce(stream ? request : request.clone(), request.signal, token, stream, o);
    } catch (error) {
      request.signal.throwIfAborted();
      if (!renewed && !stream && o.auth && token && error instanceof StoaError && error.code === 'token_expired') {
        renewed = true;
        await o.auth.renew(token, error);
        attempt--;
        continue;
      }
      if (attempt >= o.retries || stream || !repeatable(request, error, o.safe ?? false)) throw error;
      await pause(attempt, error, request.signal);
    }
  }
}

async function sendOnce(request: Request, signal: AbortSignal, token: string | undefined, stream: boolean, o: TransportOptions): Promise<Response> {
  if (token) request.headers.set('Authorization', `Bearer ${token}`);
  const attempt = new AbortController();
  const abort = () => attempt.abort(signal.reason);
  signal.addEventListener('abort', abort);
  // An upload may take long, and the body of a download too.
  const timer = stream ? undefined : setTimeout(() => attempt.abort(new DOMException('The platform did not answer in time.', 'TimeoutError')), o.timeout);
  let open = false;
  try {
    const response = await o.fetch(new Request(request, { signal: attempt.signal, redirect: 'manual' }));
    if (!response.ok) throw await readError(response);
    if (!response.headers.get('Content-Type')?.startsWith('application/json')) {
      open = true; // the signal of the call also ends its stream
      return response;
    }
    const body = await readBody(response, longestAnswer);
    return new Response(body, { status: response.status, statusText: response.statusText, headers: response.headers });
  } finally {
    clearTimeout(timer);
    if (!open) signal.removeEventListener('abort', abort);
  }
}

/** Reports whether the reason is transient, and the call did nothing or may be done twice. */
function repeatable(request: Request, error: unknown, always: boolean): boolean {
  const keyed = request.headers.has('Idempotency-Key');
  const safe = always || keyed || (request.method !== 'POST' && request.method !== 'PATCH');
  if (!(error instanceof StoaError)) return safe; // no answer, or not the whole one
  switch (error.status) {
    case 429:
      return true; // it was refused before anything was done
    case 409:
      return keyed && error.retryAfter !== undefined; // the first attempt with this key is still under way
    case 502:
    case 503:
    case 504:
      return safe;
    default:
      return false;
  }
}

/** Waits before the next attempt: as long as the answer says, or longer each time. */
export async function pause(attempt: number, error: unknown, signal: AbortSignal): Promise<void> {
  let wait = Math.min(firstPause * 2 ** attempt, longestPause);
  wait = wait / 2 + Math.random() * (wait / 2);
  const seconds = error instanceof StoaError ? error.retryAfter : undefined;
  if (seconds) {
    if (seconds * 1000 > longestPause) throw error;
    wait = seconds * 1000 + Math.random() * firstPause;
  }
  await new Promise<void>((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, wait);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
