// Queues and their depth, remembered so that rates and drain estimates can be told.
import { orchestrator, type Schemas } from '../api/client';
import { drain, type Drain } from './drain';
import { history } from './history.svelte';
import { duration } from './time';
import { rate } from './format';

/** An orchestrator of the version before knows no pause and no rate. */
export type Queue = Omit<Schemas['Queue'], 'paused' | 'ended_per_second' | 'drain_seconds'> & Partial<Pick<Schemas['Queue'], 'paused' | 'ended_per_second' | 'drain_seconds'>>;

export const queueKey = (queue: Queue) => `${queue.mission}/${queue.queue}`;
export const depth = (queue: Queue) => queue.accepted + queue.queued;

export async function queues(signal?: AbortSignal): Promise<Queue[]> {
  const list: Queue[] = (await orchestrator.get('/v1/queues', { signal })).queues;
  const at = Date.now();
  for (const queue of list) history.add(`depth ${queueKey(queue)}`, depth(queue), at);
  history.add(
    'depth',
    list.reduce((sum, queue) => sum + depth(queue), 0),
    at,
  );
  return list;
}

/** A minute and a half of samples at the usual pace: long enough to be calm, short enough to follow. */
const SAMPLES = 8;

/** Of one queue, or of all together. */
export function queueDrain(queue?: Queue): Drain {
  const seen = drain(history.of(queue ? `depth ${queueKey(queue)}` : 'depth').slice(-SAMPLES));
  // What the orchestrator says of a queue is from its first minute on; what this page saw says whether it grows.
  if (queue?.paused) return depth(queue) === 0 ? { kind: 'empty' } : { kind: 'steady' };
  if (queue && seen.kind !== 'empty' && seen.kind !== 'grows' && queue.drain_seconds != null && queue.ended_per_second) {
    return { kind: 'drains', perSecond: queue.ended_per_second, leftMs: queue.drain_seconds * 1000 };
  }
  return seen;
}

export function drainText(estimate: Drain): string {
  switch (estimate.kind) {
    case 'empty':
      return 'empty';
    case 'unknown':
      return 'measuring';
    case 'steady':
      return 'steady';
    case 'grows':
      return `grows by ${rate(estimate.perSecond)}`;
    case 'drains':
      return `empty in ${duration(estimate.leftMs)}`;
  }
}
