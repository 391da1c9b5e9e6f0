import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import test from 'node:test';

import { verifyWebhook, WebhookError } from '../src/webhook.js';

const key = Buffer.from('0123456789abcdef0123456789abcdef');
const otherKey = Buffer.from('another secret of the endpoint');
const [secret, other] = [key, otherKey].map((k) => `whsec_${k.toString('base64')}`) as [string, string];
const now = 1_800_000_000;
const body = '{"type":"credits.spent","text":"Öl"}';

const sign = (k: Buffer, at = now, text = body) => `v1,${createHmac('sha256', k).update(`msg_1.${at}.${text}`).digest('base64')}`;
const headers = (signature: string, at: number | string = now, id = 'msg_1') => ({ 'Webhook-Id': id, 'webhook-timestamp': String(at), 'webhook-signature': signature });

test('webhooks are verified', async (t) => {
  const cases: Record<string, { headers: Record<string, string>; body?: string; reason?: string }> = {
    signed: { headers: headers(sign(key)) },
    'several signatures': { headers: headers(`v1a,AAAA v1,AAAA ${sign(otherKey)} ${sign(key)}`) },
    'signed by the other': { headers: headers(sign(otherKey)), reason: 'signature' },
    'another body': { headers: headers(sign(key)), body: ` ${body}`, reason: 'signature' },
    'another id': { headers: headers(sign(key), now, 'msg_2'), reason: 'signature' },
    'another time': { headers: headers(sign(key), now + 1), reason: 'signature' },
    '4 minutes old': { headers: headers(sign(key, now - 240), now - 240) },
    '6 minutes old': { headers: headers(sign(key, now - 360), now - 360), reason: 'time' },
    'from the future': { headers: headers(sign(key, now + 360), now + 360), reason: 'time' },
    'a time that is no time': { headers: headers(sign(key), '1e9'), reason: 'header' },
    'no id': { headers: headers(sign(key), now, ''), reason: 'header' },
    'no signature': { headers: headers(''), reason: 'header' },
    'another version': { headers: headers(sign(key).replace('v1', 'v2')), reason: 'signature' },
    'a signature that is no base64': { headers: headers('v1,?'), reason: 'signature' },
    'a shortened signature': { headers: headers('v1,AAAA'), reason: 'signature' },
    'thousands of signatures': { headers: headers('v1,AAAA '.repeat(5000) + sign(key)), reason: 'signature' },
  };
  for (const [name, c] of Object.entries(cases)) {
    await t.test(name, async () => {
      const verified = verifyWebhook({ secrets: secret, headers: c.headers, body: c.body ?? body, now });
      if (c.reason) await assert.rejects(verified, (e) => e instanceof WebhookError && e.reason === c.reason);
      else await verified;
    });
  }
});

test('both secrets of a rotation are good, and a body of bytes', async () => {
  for (const k of [key, otherKey]) await verifyWebhook({ secrets: [other, secret], headers: new Headers(headers(sign(k))), body: Buffer.from(body), now });
});

test('a secret that is none is refused', async () => {
  for (const secrets of ['', 'whsec_', 'whsec_?', 'whsec_AAAA', key.toString('base64'), []]) {
    await assert.rejects(verifyWebhook({ secrets, headers: headers(sign(key)), body, now }), TypeError);
  }
});
