import { pause } from './transport.js';

const longestEvent = 1 << 20; // characters

/**
 * How many milliseconds a connection lasts at least that ends without an event because there
 * was none, and not because something is wrong.
 */
const quiet = 10_000;

/**
 * Yields the events of a stream. It connects again when the stream ends, after the last event,
 * until the API says that there are no more or the signal aborts.
 */
export async function* events<T>(connect: (lastEventId: string | undefined) => Promise<Response>, retries: number, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  let last: string | undefined;
  for (let fruitless = 0; ; fruitless++) {
    if (fruitless > 0) await pause(fruitless, undefined, signal);
    const response = await connect(last);
    if (response.status === 204) return;
    const begun = Date.now();
    for await (const event of parse(response, signal)) {
      last = event.id ?? last;
      fruitless = -1;
      yield JSON.parse(event.data) as T;
    }
    signal.throwIfAborted();
    if (Date.now() - begun >= quiet) fruitless = -1;
    if (fruitless >= retries) throw new Error('The stream of events ends again and again.');
  }
}

type Event = { id: string | undefined; data: string };

/** Yields the events of one connection. A connection that breaks off ends them. */
async function* parse(response: Response, signal: AbortSignal): AsyncGenerator<Event, void, undefined> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (reader === undefined) return;
  const stop = () => void reader.cancel().catch(() => undefined);
  signal.addEventListener('abort', stop);
  try {
    let rest = '';
    let event: { id: string | undefined; data: string[]; length: number } = { id: undefined, data: [], length: 0 };
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
      if (done || value === undefined) return;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') {
          if (event.data.length > 0) yield { id: event.id, data: event.data.join('\n') };
          event = { id: undefined, data: [], length: 0 };
        } else if (line.startsWith('data:')) {
          event.data.push(line.slice(5));
          event.length += line.length;
        } else if (line.startsWith('id:')) event.id = line.slice(3).trimStart();
      }
      if (rest.length > longestEvent || event.length > longestEvent) throw new Error('An event is too long.');
    }
  } finally {
    signal.removeEventListener('abort', stop);
    await reader.cancel().catch(() => undefined);
  }
}
