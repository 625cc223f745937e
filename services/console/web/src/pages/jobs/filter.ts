// The filter of the jobs' list: from the address and from typed text, to the API and to the CLI. Pure.
import { RETRYABLE_STATES, type JobState } from '../../lib/states';
import { parseWhen } from '../../lib/time';

export interface Filter {
  states: string[];
  tool: string;
  queue: string;
  mission: string;
  by: string;
  /** Of the error of those that ended without success. */
  error: string;
  labels: string[];
  since: string;
  until: string;
  /** Of the loaded rows: in id, tool, error or labels. */
  text: string;
}

export const NONE: Filter = { states: [], tool: '', queue: '', mission: '', by: '', error: '', labels: [], since: '', until: '', text: '' };

const WORDS = ['state', 'tool', 'queue', 'mission', 'by', 'error', 'label', 'since', 'until'] as const;

export function fromQuery(query: URLSearchParams): Filter {
  const get = (name: string) => query.get(name) ?? '';
  return {
    states: get('state').split(',').filter(Boolean),
    tool: get('tool'),
    queue: get('queue'),
    mission: get('mission'),
    by: get('by'),
    error: get('error'),
    labels: query.getAll('label').flatMap((one) => one.split(',')).filter(Boolean),
    since: get('since'),
    until: get('until'),
    text: get('q'),
  };
}

/** The address's parts; null removes one. A changed filter begins at the first page. */
export function toQuery(filter: Filter): Record<string, string | null> {
  return {
    state: filter.states.join(',') || null,
    tool: filter.tool || null,
    queue: filter.queue || null,
    mission: filter.mission || null,
    by: filter.by || null,
    error: filter.error || null,
    label: filter.labels.join(',') || null,
    since: filter.since || null,
    until: filter.until || null,
    q: filter.text || null,
    cursor: null,
  };
}

/** `state:failed,dead tool:http label:site=a since:2h timed out`, with quotes around what has spaces. */
export function toText(filter: Filter): string {
  const part = (name: string, value: string) => (value ? `${name}:${/\s/.test(value) ? `"${value.replaceAll('"', '')}"` : value}` : '');
  return [
    part('state', filter.states.join(',')),
    part('tool', filter.tool),
    part('queue', filter.queue),
    part('mission', filter.mission),
    part('by', filter.by),
    part('error', filter.error),
    ...filter.labels.map((one) => part('label', one)),
    part('since', filter.since),
    part('until', filter.until),
    filter.text,
  ]
    .filter(Boolean)
    .join(' ');
}

export function fromText(text: string): Filter {
  const filter: Filter = { ...NONE, states: [], labels: [] };
  const rest: string[] = [];
  for (const [whole, name, quoted, bare] of text.matchAll(/(?:([a-z]+):)?(?:"([^"]*)"|(\S+))/g)) {
    const value = quoted ?? bare ?? '';
    if (!name || !(WORDS as readonly string[]).includes(name)) {
      rest.push(quoted ?? whole);
      continue;
    }
    if (name === 'state') filter.states.push(...value.split(',').filter(Boolean));
    else if (name === 'label') filter.labels.push(value);
    else filter[name as 'tool' | 'queue' | 'mission' | 'by' | 'error' | 'since' | 'until'] = value;
  }
  filter.states = [...new Set(filter.states)];
  filter.text = rest.join(' ');
  return filter;
}

/** A job's id, or enough of its beginning to find it. */
export function idPrefix(text: string): string | undefined {
  const word = text.trim();
  return /^[0-9a-fA-F]{8}[0-9a-fA-F-]*$/.test(word) || /^-*([0-9a-fA-F]-*){6,32}$/.test(word) ? word : undefined;
}

function moment(text: string, now: number): string | undefined {
  if (!text) return undefined;
  const at = parseWhen(text, now);
  return at === undefined ? text : new Date(at).toISOString();
}

/** The query of GET /v1/jobs. A moment that is none is sent as it is, so that the server says what it expects. */
export function toApi(filter: Filter, now: number) {
  return {
    state: filter.states.length > 0 ? (filter.states as JobState[]) : undefined,
    tool: filter.tool || undefined,
    queue: filter.queue || undefined,
    mission: filter.mission || undefined,
    submitted_by: filter.by || undefined,
    error: filter.error || undefined,
    label: filter.labels.length > 0 ? filter.labels : undefined,
    created_after: moment(filter.since, now),
    created_before: moment(filter.until, now),
  };
}

/** The body of a retry or a cancel of all that match. */
export function toBulk(filter: Filter, states: readonly string[], now: number) {
  // An open job has no error that ended it.
  const possible = filter.error ? states.filter((one) => RETRYABLE_STATES.includes(one)) : [...states];
  return {
    states: filter.states.length > 0 ? filter.states.filter((one) => possible.includes(one)) : possible,
    ...(filter.error && { error: filter.error }),
    tool: filter.tool || null,
    queue: filter.queue || null,
    mission: filter.mission || null,
    labels: filter.labels,
    submitted_by: filter.by || null,
    created_after: moment(filter.since, now) ?? null,
    created_before: moment(filter.until, now) ?? null,
  };
}

/** Words of `agentforge job list` and its siblings. */
export function toCli(filter: Filter): string[] {
  const words: string[] = [];
  const add = (option: string, value: string) => {
    if (value) words.push(option, value);
  };
  for (const state of filter.states) add('--state', state);
  add('--tool', filter.tool);
  add('--queue', filter.queue);
  add('--mission', filter.mission);
  add('--submitted-by', filter.by);
  add('--error', filter.error);
  for (const label of filter.labels) add('--label', label);
  add('--since', filter.since);
  add('--until', filter.until);
  return words;
}

export function isEmpty(filter: Filter): boolean {
  return toText(filter) === '';
}

interface Searched {
  id: string;
  tool: string;
  queue: string;
  labels: Record<string, unknown>;
  error?: { class: string; message: string } | null;
}

/** Whether a loaded job has the typed text. */
export function hasText(job: Searched, text: string): boolean {
  if (!text) return true;
  const where = [job.id, job.tool, job.queue, job.error?.class ?? '', job.error?.message ?? '', ...Object.entries(job.labels).map(([name, value]) => `${name}=${String(value)}`)];
  const wanted = text.toLowerCase();
  return where.some((one) => one.toLowerCase().includes(wanted));
}
