import type { Problem } from './generated/types.gen.js';

/** A stable name of what went wrong. It is empty if an answer did not come from the API. */
export type ProblemCode = Problem['code'] | '';

const longestProblem = 1 << 20;

/** Says that the API refused a call. */
export class StoaError extends Error {
  override readonly name = 'StoaError';
  /** The HTTP status. */
  readonly status: number;
  readonly code: ProblemCode;
  /** The whole problem document, if the answer had one. */
  readonly problem: Problem | undefined;
  /** Seconds after which to try again, if the answer says so. */
  readonly retryAfter: number | undefined;

  constructor(status: number, message: string, problem?: Problem, retryAfter?: number) {
    super(message);
    this.status = status;
    this.code = problem?.code ?? '';
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/** Reports whether an error is a StoaError with one of the codes. */
export function hasCode(error: unknown, ...codes: ProblemCode[]): error is StoaError {
  return error instanceof StoaError && codes.includes(error.code);
}

/** Returns the error of an answer. */
export async function readError(response: Response): Promise<StoaError> {
  const retryAfter = parseRetryAfter(response.headers.get('Retry-After'), Date.now());
  if (response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)) {
    await response.body?.cancel();
    return new StoaError(response.status, `The address is redirected to ${response.headers.get('Location') ?? 'another one'}. Use the platform's own address.`);
  }
  const problem = await readProblem(response);
  if (problem === undefined) {
    return new StoaError(response.status, `The answer is ${response.status} ${response.statusText} and does not come from the API.`, undefined, retryAfter);
  }
  const fields = (problem.errors ?? []).map((e) => ` (${e.field}: ${e.message})`).join('');
  return new StoaError(response.status, `${problem.code}: ${problem.detail}${fields} [request ${problem.requestId}]`, problem, retryAfter);
}

async function readProblem(response: Response): Promise<Problem | undefined> {
  try {
    const problem: unknown = JSON.parse(new TextDecoder().decode(await readBody(response, longestProblem)));
    const { code } = problem as { code: unknown };
    return typeof code === 'string' && code !== '' ? (problem as Problem) : undefined;
  } catch {
    return undefined; // a proxy's page
  }
}

/** Reads a body, unless it has more bytes than limit. */
export async function readBody(response: Response, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done || value === undefined) break;
    length += value.length;
    if (length > limit) {
      await reader?.cancel();
      throw new StoaError(response.status, `The answer is longer than ${limit >> 20} MiB.`);
    }
    chunks.push(value);
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** Parses the header Retry-After, which has seconds or a time. */
export function parseRetryAfter(value: string | null, now: number): number | undefined {
  if (value === null) return undefined;
  if (/^\d+$/.test(value)) return Number(value);
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - now) / 1000);
}
