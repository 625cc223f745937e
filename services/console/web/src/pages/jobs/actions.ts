// What can be done with jobs, and how it is taken back.
import { orchestrator, type Schemas } from '../../api/client';
import { json } from '../../api/http';
import { plural, shortId } from '../../lib/format';
import { toasts } from '../../lib/toasts.svelte';

export type Job = Schemas['Job'];
export type Operation = Schemas['Operation'];

export async function cancel(id: string, changed: () => unknown): Promise<void> {
  try {
    await orchestrator.post('/v1/jobs/{id}/cancel', { path: { id } });
    toasts.done(`Job ${shortId(id)} is cancelled`, async () => {
      await retry(id, changed, false);
    });
  } catch (error) {
    toasts.failed(`Job ${shortId(id)} was not cancelled`, error);
  }
  changed();
}

export async function retry(id: string, changed: () => unknown, canUndo = true): Promise<void> {
  try {
    await orchestrator.post('/v1/jobs/{id}/retry', { path: { id } });
    toasts.done(`Job ${shortId(id)} is back in its queue`, canUndo ? () => cancel(id, changed) : undefined);
  } catch (error) {
    toasts.failed(`Job ${shortId(id)} was not put back`, error);
  }
  changed();
}

export type Bulk = 'cancel' | 'retry';

/** What a bulk action is about: chosen jobs, or all that match a filter. */
export interface BulkBody {
  job_ids?: string[];
  states?: string[];
  limit?: number;
  rate?: number;
  dry_run?: boolean;
  async?: boolean;
  [filter: string]: unknown;
}

interface Progress {
  matched: number;
}

/** How many a bulk action would change. */
export async function countBulk(kind: Bulk, body: BulkBody, signal?: AbortSignal): Promise<number> {
  const answer = await json<Progress>('POST', `/api/orchestrator/v1/jobs:${kind}`, { body: { ...body, dry_run: true }, signal });
  return answer.matched;
}

/** Starts it as an operation that continues without this page. */
export async function startBulk(kind: Bulk, body: BulkBody): Promise<Operation> {
  const operation = await json<Operation>('POST', `/api/orchestrator/v1/jobs:${kind}`, { body: { ...body, async: true } });
  void follow(operation);
  return operation;
}

/** How many jobs an operation has changed; one of the version before knows no cancels. */
export function changed(operation: Operation): number {
  return operation.put_back + (operation.cancelled ?? 0);
}

const ASK_MS = 1_000;
const verbs: Record<string, string> = { cancel: 'cancelled', retry: 'put back', redrive: 'put back' };

/** Says in a toast how an operation ended. */
export async function follow(operation: Operation): Promise<void> {
  toasts.done(`Operation ${shortId(operation.id)} has begun`, undefined, '/operations');
  let now = operation;
  while (!now.ended_at) {
    await new Promise((done) => setTimeout(done, ASK_MS));
    try {
      now = await orchestrator.get('/v1/operations/{id}', { path: { id: operation.id } });
    } catch {
      return;
    }
  }
  if (now.error) toasts.failed(`Operation ${shortId(now.id)}`, new Error(now.error));
  else toasts.done(`${plural(changed(now), 'job')} ${verbs[now.kind] ?? 'changed'}${now.skipped > 0 ? `, ${now.skipped} skipped` : ''}`, undefined, '/operations');
}
