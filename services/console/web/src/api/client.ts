// Typed calls of the three REST APIs through the console's proxy. Paths, queries, bodies and answers are checked against
// the OpenAPI documents by the compiler; nothing of this file but a few lines remains at run time.
import { json, type RequestOptions } from './http';
import type { components as BroadcasterParts, paths as Broadcaster } from './types/broadcaster';
import type { components as OrchestratorParts, paths as Orchestrator } from './types/orchestrator';
import type { paths as Tactical } from './types/tactical';

export type Schemas = OrchestratorParts['schemas'];
export type BroadcasterSchemas = BroadcasterParts['schemas'];

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';
type With<Paths, M extends Method> = { [P in keyof Paths]: Paths[P] extends Record<M, { responses: unknown }> ? P : never }[keyof Paths] & string;
type Operation<Paths, P extends keyof Paths, M extends Method> = Paths[P] extends Record<M, infer O> ? O : never;
type Content<R> = R extends { content: infer C } ? ('application/json' extends keyof C ? C['application/json'] : unknown) : undefined;
type Ok<O> = O extends { responses: infer R } ? Content<R[keyof R & (200 | 201 | 202 | 204)]> : never;
type QueryOf<O> = O extends { parameters: { query?: infer Q } } ? Q : never;
type PathOf<O> = O extends { parameters: { path: infer P } } ? P : Record<string, never>;
type BodyOf<O> = O extends { requestBody?: infer B } ? (NonNullable<B> extends { content: { 'application/json': infer J } } ? J : never) : never;

interface Given<O> extends Omit<RequestOptions, 'query' | 'body'> {
  path?: PathOf<O>;
  query?: QueryOf<O>;
  body?: BodyOf<O>;
}

function filled(path: string, values: Record<string, unknown> | undefined): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(values?.[name])));
}

class Api<Paths> {
  constructor(readonly prefix: string) {}

  get<P extends With<Paths, 'get'>>(path: P, given: Given<Operation<Paths, P, 'get'>> = {}): Promise<Ok<Operation<Paths, P, 'get'>>> {
    return this.call('GET', path, given);
  }
  post<P extends With<Paths, 'post'>>(path: P, given: Given<Operation<Paths, P, 'post'>> = {}): Promise<Ok<Operation<Paths, P, 'post'>>> {
    return this.call('POST', path, given);
  }
  patch<P extends With<Paths, 'patch'>>(path: P, given: Given<Operation<Paths, P, 'patch'>> = {}): Promise<Ok<Operation<Paths, P, 'patch'>>> {
    return this.call('PATCH', path, given);
  }
  delete<P extends With<Paths, 'delete'>>(path: P, given: Given<Operation<Paths, P, 'delete'>> = {}): Promise<Ok<Operation<Paths, P, 'delete'>>> {
    return this.call('DELETE', path, given);
  }

  /** The address of a stream or a download. */
  url(path: keyof Paths & string, values?: Record<string, unknown>): string {
    return this.prefix + filled(path, values);
  }

  private call<T>(method: string, path: string, given: object): Promise<T> {
    const { path: values, ...options } = given as { path?: unknown };
    return json<T>(method, this.prefix + filled(path, values as Record<string, unknown>), options as RequestOptions);
  }
}

export const orchestrator = new Api<Orchestrator>('/api/orchestrator');
export const broadcaster = new Api<Broadcaster>('/api/broadcaster');
export const tactical = new Api<Tactical>('/api/tactical');
