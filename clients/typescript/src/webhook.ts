/** Verifies the webhooks of a Stoa platform, which are signed as Standard Webhooks describes. */

const prefix = 'whsec_';
const tolerance = 5 * 60; // seconds, for clocks that differ and against webhooks that somebody sends again
const mostSignatures = 20; // bounds the work; there are several while a secret is rotated
const shortestSecret = 16; // bytes

/** Says why a webhook is refused. */
export class WebhookError extends Error {
  override readonly name = 'WebhookError';
  constructor(
    readonly reason: 'header' | 'time' | 'signature',
    message: string,
  ) {
    super(message);
  }
}

export interface WebhookInput {
  /** The secrets of the endpoint, which begin with whsec_. During a rotation there are two. */
  secrets: string | string[];
  headers: Headers | Record<string, string | string[] | undefined>;
  /** The body as it was received: JSON that was decoded and encoded again is another one. */
  body: string | Uint8Array;
  /** Stands for the time now, in seconds. */
  now?: number;
}

/** Throws a WebhookError unless one of the secrets signed the body a short while ago. */
export async function verifyWebhook(input: WebhookInput): Promise<void> {
  const secrets = (Array.isArray(input.secrets) ? input.secrets : [input.secrets]).map(decodeSecret);
  if (secrets.length === 0) throw new TypeError('There is no secret.');
  const [id, sent, signatures] = ['webhook-id', 'webhook-timestamp', 'webhook-signature'].map((name) => header(input.headers, name));
  if (!id || !sent || !signatures || !/^\d{1,15}$/.test(sent)) throw new WebhookError('header', 'A header is missing or malformed.');
  if (Math.abs((input.now ?? Date.now() / 1000) - Number(sent)) > tolerance) {
    throw new WebhookError('time', 'The webhook is more than 5 minutes old, or from the future.');
  }
  const body = typeof input.body === 'string' ? new TextEncoder().encode(input.body) : input.body;
  const head = new TextEncoder().encode(`${id}.${sent}.`);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  for (const secret of secrets) {
    const key = await crypto.subtle.importKey('raw', secret, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
    for (const signature of signatures.split(' ', mostSignatures)) {
      const bytes = signature.startsWith('v1,') ? decodeBase64(signature.slice(3)) : undefined;
      if (bytes && (await crypto.subtle.verify('HMAC', key, bytes, signed))) return; // compares in constant time
    }
  }
  throw new WebhookError('signature', 'No signature fits.');
}

function decodeSecret(secret: string): Uint8Array<ArrayBuffer> {
  const bytes = secret.startsWith(prefix) ? decodeBase64(secret.slice(prefix.length)) : undefined;
  if (bytes === undefined || bytes.length < shortestSecret) {
    throw new TypeError(`A secret is not ${prefix} with at least ${shortestSecret} bytes in base64.`);
  }
  return bytes;
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function header(headers: WebhookInput['headers'], name: string): string | undefined {
  if (headers instanceof Headers) return headers.get(name) ?? undefined;
  for (const [key, value] of Object.entries(headers)) {
    if (key.toLowerCase() === name) return Array.isArray(value) ? value[0] : value;
  }
  return undefined;
}
