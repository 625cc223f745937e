// How fast jobs end: from Prometheus where it is configured, which remembers; otherwise from what this page has seen.
import { json } from '../api/http';

interface Answer {
  data: { result: { values: [number, string][] }[] };
}

const MINUTES = 60;
const STEP_SECONDS = 60;
const EXPRESSION = 'sum(rate(agentforge_job_end_to_end_seconds_count[2m]))';

/** Jobs per second over the last hour, oldest first; null where nothing is known. */
export async function throughput(now: number, signal?: AbortSignal): Promise<(number | null)[]> {
  const end = Math.floor(now / 1000 / STEP_SECONDS) * STEP_SECONDS;
  const start = end - MINUTES * 60;
  const answer = await json<Answer>('GET', '/api/prometheus/api/v1/query_range', { query: { query: EXPRESSION, start, end, step: STEP_SECONDS }, signal });
  const known = new Map((answer.data.result[0]?.values ?? []).map(([at, value]) => [at, Number(value)]));
  const list: (number | null)[] = [];
  for (let at = start; at <= end; at += STEP_SECONDS) {
    const value = known.get(at);
    list.push(value === undefined || Number.isNaN(value) ? null : value);
  }
  return list;
}
