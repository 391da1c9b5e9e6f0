export { Stoa, type StoaOptions } from './client.js';
export { hasCode, StoaError, type ProblemCode } from './errors.js';
export { pages, type Page } from './pages.js';
export type { Fetch } from './transport.js';
export type { SessionTokens } from './session.js';
export { verifyWebhook, WebhookError, type WebhookInput } from './webhook.js';
export type * from './generated/types.gen.js';
