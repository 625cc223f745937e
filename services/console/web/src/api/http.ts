// Requests to the console: cookies, the CSRF header, and one silent renewal of the session when it has expired.
import { Problem } from './problem';

export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

export interface RequestOptions {
  query?: Query;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Survives leaving the page. */
  keepalive?: boolean;
  /** Numbers keep their text where this browser can: 0.0 is written as 0.0 again. */
  exact?: boolean;
}

/** What the session gives this module; it knows of no page. */
export interface Guard {
  csrf(): string | undefined;
  /** Renews the session; whether that worked. */
  renew(): Promise<boolean>;
}

let guard: Guard | undefined;

export function guardWith(own: Guard) {
  guard = own;
}

function address(path: string, query: Query | undefined): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value === null || value === undefined || value === '') continue;
    for (const one of Array.isArray(value) ? value : [value]) search.append(name, String(one));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

/** The answer of a request that succeeded; throws a Problem otherwise. */
export async function send(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
  const once = () => {
    const headers: Record<string, string> = { accept: 'application/json', ...options.headers };
    if (options.body !== undefined) headers['content-type'] = 'application/json';
    const csrf = method === 'GET' ? undefined : guard?.csrf();
    if (csrf) headers['x-af-csrf'] = csrf;
    return fetch(address(path, options.query), {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
      keepalive: options.keepalive,
      credentials: 'same-origin',
    });
  };
  let response = await once();
  if (response.status === 401 && guard && !path.startsWith('/auth/') && (await guard.renew())) response = await once();
  if (!response.ok) throw await Problem.from(response);
  return response;
}

/** The document of an answer that was asked for elsewhere. */
export async function documentOf<T>(asked: Promise<Response>): Promise<T> {
  const response = await asked;
  if (!response.ok) throw await Problem.from(response);
  return (await response.json()) as T;
}

export async function json<T>(method: string, path: string, options?: RequestOptions): Promise<T> {
  const response = await send(method, path, options);
  if (response.status === 204) return undefined as T;
  if (options?.exact) return JSON.parse(await response.text(), keepText as (key: string, value: unknown) => unknown) as T;
  return (await response.json()) as T;
}

/** Not in every browser yet, nor in the compiler's library. */
const raw = (JSON as { rawJSON?: (text: string) => unknown }).rawJSON;

/** Whether `exact` answers have the text of every number. */
export const keepsText = raw !== undefined;

function keepText(_: string, value: unknown, context?: { source?: string }): unknown {
  const isOther = typeof value === 'number' && context?.source !== undefined && context.source !== String(value);
  return isOther && raw ? raw(context.source!) : value;
}
