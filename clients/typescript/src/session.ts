import type { StoaError } from './errors.js';
import type { Tokens } from './generated/types.gen.js';
import { type Authorizer, type Fetch, send } from './transport.js';

/**
 * How long before its end an access token is renewed, in milliseconds: an upload cannot be
 * repeated with another token.
 */
const renewBefore = 30_000;

/**
 * Limits one attempt of an exchange, in milliseconds. The API accepts a refresh token again for
 * 10 seconds after its first use; a second attempt must be within them.
 */
const exchangeTimeout = 4_000;

export class ApiKey implements Authorizer {
  constructor(private readonly key: string) {}

  async token(): Promise<string> {
    return this.key;
  }

  async renew(_used: string, refused: StoaError): Promise<void> {
    throw refused; // an API key cannot be renewed
  }
}

/** The tokens that a session needs. */
export type SessionTokens = { accessToken?: string; refreshToken: string };

export class Session implements Authorizer {
  private tokens: { accessToken: string; refreshToken: string };
  private expires: number | undefined; // when the access token does, if that is known
  private exchange: Promise<void> | undefined; // one for all calls: a refresh token is used once

  constructor(
    private readonly baseUrl: string,
    private readonly fetch: Fetch,
    tokens: SessionTokens,
    private readonly changed?: (tokens: Tokens) => void | Promise<void>,
  ) {
    this.tokens = { accessToken: tokens.accessToken ?? '', refreshToken: tokens.refreshToken };
  }

  async token(): Promise<string> {
    const current = this.tokens.accessToken;
    if (current === '') await this.replace(current);
    else if (this.expires !== undefined && this.expires - Date.now() < renewBefore) {
      await this.replace(current).catch(() => undefined); // the token may still be valid
    }
    return this.tokens.accessToken;
  }

  renew(used: string): Promise<void> {
    return this.replace(used);
  }

  /** Exchanges the tokens, unless used is no longer the access token. */
  private async replace(used: string): Promise<void> {
    if (this.tokens.accessToken !== used) return;
    this.exchange ??= this.run().finally(() => {
      this.exchange = undefined;
    });
    await this.exchange;
  }

  private async run(): Promise<void> {
    const begun = Date.now();
    const request = new Request(`${this.baseUrl}/api/auth/refresh`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
      body: JSON.stringify({ refreshToken: this.tokens.refreshToken }),
    });
    const response = await send(request, { fetch: this.fetch, retries: 1, timeout: exchangeTimeout, safe: true });
    const tokens = (await response.json()) as Tokens;
    this.tokens = { accessToken: tokens.accessToken, refreshToken: tokens.refreshToken };
    this.expires = begun + tokens.expiresIn * 1000;
    await this.changed?.(tokens);
  }
}
