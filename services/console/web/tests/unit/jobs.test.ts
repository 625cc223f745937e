// The filter, the form and the timeline of jobs.
import { describe, expect, it } from 'vitest';
import { fromQuery, fromText, hasText, idPrefix, NONE, toApi, toBulk, toCli, toQuery, toText } from '../../src/pages/jobs/filter';
import { BLANK, FieldError, fromJob, submission, submitCli } from '../../src/pages/jobs/form';
import { bars, moments, waiting } from '../../src/pages/jobs/timeline';
import type { Schemas } from '../../src/api/client';

describe('the filter', () => {
  const text = 'state:failed,dead tool:http label:site=a label:"team=a b" since:2h timed out';
  it('is the same as text and in the address', () => {
    const filter = fromText(text);
    expect(filter).toEqual({ ...NONE, states: ['failed', 'dead'], tool: 'http', labels: ['site=a', 'team=a b'], since: '2h', text: 'timed out' });
    expect(toText(filter)).toBe(text);
    const query = new URLSearchParams(Object.entries(toQuery(filter)).filter((one): one is [string, string] => one[1] !== null));
    expect(fromQuery(query)).toEqual(filter);
  });
  it('searches the errors of all jobs, and only those of ended ones', () => {
    const filter = fromText('error:"timed out" error:now queue:mail');
    expect([filter.error, toText(filter)]).toEqual(['now', 'queue:mail error:now']);
    const told = fromText(toText({ ...NONE, error: 'exit "code" 7' }));
    expect(told.error).toBe('exit code 7');
    expect(toApi(told, 0)).toMatchObject({ error: 'exit code 7' });
    expect(toBulk(told, ['failed', 'dead'], 0)).toMatchObject({ states: ['failed', 'dead'], error: 'exit code 7' });
    expect(toBulk(told, ['queued', 'running'], 0).states).toEqual([]);
    expect(toBulk(NONE, ['queued'], 0)).not.toHaveProperty('error');
    expect(toCli(told)).toEqual(['--error', 'exit code 7']);
  });
  it('keeps unknown words as text', () => expect(fromText('colour:red https://a').text).toBe('colour:red https://a'));
  it('becomes a query, a body and a command', () => {
    const filter = fromText(text);
    const now = Date.UTC(2026, 11, 1, 2);
    expect(toApi(filter, now)).toMatchObject({ state: ['failed', 'dead'], tool: 'http', label: ['site=a', 'team=a b'], created_after: '2026-12-01T00:00:00.000Z', queue: undefined });
    expect(toBulk(filter, ['dead', 'expired'], now)).toMatchObject({ states: ['dead'], tool: 'http', queue: null });
    expect(toBulk(NONE, ['dead'], now).states).toEqual(['dead']);
    expect(toBulk({ ...NONE, by: 'ci' }, ['queued'], now)).toHaveProperty('submitted_by', 'ci');
    expect(toCli(filter)).toEqual(['--state', 'failed', '--state', 'dead', '--tool', 'http', '--label', 'site=a', '--label', 'team=a b', '--since', '2h']);
  });
  it('knows ids', () => {
    expect(idPrefix('0190c3e2-7d')).toBe('0190c3e2-7d');
    expect(idPrefix('deadbeef')).toBe('deadbeef');
    expect(idPrefix('tool:x')).toBeUndefined();
    expect(idPrefix('dead')).toBeUndefined();
  });
  it('finds text in errors and labels', () => {
    const job = { id: '1', tool: 'http', queue: 'q', labels: { site: 'a' }, error: { class: 'timeout', message: 'Took too long' } };
    expect([hasText(job, 'TOO LONG'), hasText(job, 'site=a'), hasText(job, 'else'), hasText(job, '')]).toEqual([true, true, false, true]);
  });
});

describe('the form', () => {
  it('is a submission, and its command', () => {
    const body = submission({ ...BLANK, tool: ' echo ', args: '{"a":1}', labels: 'site=a\n\nteam = b=c', runIn: '10m', attempts: '3' });
    expect(body).toEqual({ tool: 'echo', args: { a: 1 }, labels: { site: 'a', team: 'b=c' }, run_in: '10m', max_attempts: 3 });
    expect(submitCli(body)).toEqual(['job', 'submit', 'echo', '{"a":1}', '--label', 'site=a', '--label', 'team=b=c', '--run-at', '+10m', '--max-attempts', '3']);
  });
  it.each([
    [{ ...BLANK }, 'tool'],
    [{ ...BLANK, tool: 'a', args: '[1]' }, 'args'],
    [{ ...BLANK, tool: 'a', args: '{' }, 'args'],
    [{ ...BLANK, tool: 'a', labels: 'x' }, 'labels'],
    [{ ...BLANK, tool: 'a', attempts: '101' }, 'attempts'],
  ])('names the field at fault', (fields, field) => {
    try {
      submission(fields);
    } catch (error) {
      expect((error as FieldError).field).toBe(field);
      return;
    }
    expect.unreachable();
  });
  it('takes the fields of an earlier job but not its key', () => {
    const fields = fromJob({ tool: 'echo', queue: 'q', args: { a: 1 }, labels: { x: 'y' }, timeout_ms: 5000, max_attempts: 2 });
    expect(submission(fields)).toEqual({ tool: 'echo', queue: 'q', args: { a: 1 }, labels: { x: 'y' }, timeout: '5000ms', max_attempts: 2 });
  });
});

describe('the timeline', () => {
  const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();
  const ms = (second: number) => Date.parse(at(second));
  const job = { state: 'running', created_at: at(0), started_at: at(20), attempts: 2, worker: 'w2', queue: 'default' } as unknown as Schemas['Job'];
  const attempt = { attempt: 1, delivery: 1, started_at: at(2), finished_at: at(5), outcome: 'failed', worker: 'w1', error: { class: 'timeout', message: 'late', log_tail: '' }, retry_at: null } as Schemas['JobAttempt'];
  it('has waits and runs up to the present', () => {
    expect(bars(job, [attempt], ms(30)).map((one) => [one.attempt, one.kind, (one.from - ms(0)) / 1000, (one.to - ms(0)) / 1000, one.outcome])).toEqual([
      [1, 'wait', 0, 2, 'waiting'],
      [1, 'run', 2, 5, 'failed'],
      [2, 'wait', 5, 20, 'waiting'],
      [2, 'run', 20, 30, 'running'],
    ]);
  });
  it('tells what happened in order', () => {
    expect(moments(job, [attempt]).map((one) => one.text)).toEqual(['Accepted', 'Attempt 1 began on w1', 'Attempt 1 failed', 'Attempt 2 began on w2']);
  });
  it('says why an open job waits', () => {
    expect(waiting({ ...job, state: 'accepted', waits_for: 'retry', attempts: 1 })).toContain('Attempt 1 failed');
    expect(waiting(job)).toBeUndefined();
  });
});
