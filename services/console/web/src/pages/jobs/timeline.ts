// What happened to a job, from what is known of it: bars for the picture, lines for the list. Pure.
import type { Schemas } from '../../api/client';
import { isOpen } from '../../lib/states';
import { millis } from '../../lib/time';

export interface Bar {
  attempt: number;
  kind: 'wait' | 'run';
  from: number;
  to: number;
  outcome: string;
  worker: string | null;
}

export interface Moment {
  at: number;
  state: string;
  text: string;
  detail?: string;
}

type Job = Schemas['Job'];
type Attempt = Schemas['JobAttempt'];

/** Waits and runs in order; the last reaches to the present while the job is open. */
export function bars(job: Job, attempts: readonly Attempt[], now: number): Bar[] {
  const list: Bar[] = [];
  let since = millis(job.created_at) ?? now;
  for (const one of attempts) {
    const ended = millis(one.finished_at) ?? since;
    const begun = millis(one.started_at) ?? ended;
    if (begun > since) list.push({ attempt: one.attempt, kind: 'wait', from: since, to: begun, outcome: 'waiting', worker: null });
    list.push({ attempt: one.attempt, kind: 'run', from: begun, to: Math.max(ended, begun), outcome: one.outcome, worker: one.worker });
    since = Math.max(ended, begun);
  }
  if (isOpen(job.state)) {
    const begun = millis(job.started_at);
    const next = Math.max(job.attempts, attempts.length + 1);
    if (job.state === 'running' && begun !== undefined) {
      if (begun > since) list.push({ attempt: next, kind: 'wait', from: since, to: begun, outcome: 'waiting', worker: null });
      list.push({ attempt: next, kind: 'run', from: Math.max(begun, since), to: Math.max(now, begun), outcome: 'running', worker: job.worker });
    } else list.push({ attempt: next, kind: 'wait', from: since, to: Math.max(now, since), outcome: 'waiting', worker: null });
  }
  return list;
}

/** What happened, oldest first. */
export function moments(job: Job, attempts: readonly Attempt[]): Moment[] {
  const list: Moment[] = [];
  const add = (at: string | null | undefined, state: string, text: string, detail?: string) => {
    const time = millis(at);
    if (time !== undefined) list.push({ at: time, state, text, detail });
  };
  add(job.created_at, 'accepted', job.submitted_by ? `Accepted from ${job.submitted_by}` : 'Accepted');
  add(job.queued_at, 'queued', `Published to ${job.queue}, attempt ${Math.max(job.attempts, 1)}`);
  for (const one of attempts) {
    add(one.started_at, 'running', `Attempt ${one.attempt} began${one.worker ? ` on ${one.worker}` : ''}`, one.delivery > 1 ? `delivery ${one.delivery}` : undefined);
    add(one.finished_at, one.outcome, `Attempt ${one.attempt} ${one.outcome.replace('_', ' ')}`, one.error ? `${one.error.class}: ${one.error.message}` : undefined);
  }
  if (job.state === 'running') add(job.started_at, 'running', `Attempt ${job.attempts} began${job.worker ? ` on ${job.worker}` : ''}`);
  if (job.state === 'cancelled') add(job.finished_at, 'cancelled', job.cancelled_by ? `Cancelled by ${job.cancelled_by}` : 'Cancelled');
  if (job.state === 'expired') add(job.finished_at, 'expired', 'The deadline passed');
  if (job.state === 'dead' && attempts.length === 0) add(job.finished_at, 'dead', 'Dead');
  if (job.waits_for === 'retry') add(job.next_attempt_at, 'waiting', 'The next attempt may be published');
  if (job.waits_for === 'run_at') add(job.run_at, 'waiting', 'May run from here on');
  return list.sort((a, b) => a.at - b.at);
}

/** Why an open job waits, in a sentence. */
export function waiting(job: Job): string | undefined {
  if (job.state === 'accepted') {
    if (job.waits_for === 'run_at') return 'It waits for the time that it was submitted for';
    if (job.waits_for === 'retry') return `Attempt ${job.attempts} failed; it waits for the next`;
    return 'It is due, and leaves for its queue';
  }
  if (job.state === 'queued') return `It waits for a worker of the queue ${job.queue} to take it`;
  return undefined;
}
