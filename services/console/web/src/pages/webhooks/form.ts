// A new endpoint from the fields of the form. Pure.
import type { BroadcasterSchemas } from '../../api/client';

export const FORMATS = ['json', 'raw', 'cloudevents', 'slack', 'teams', 'discord'] as const;
export const OUTCOMES = ['delivered', 'retried', 'dead', 'disabled', 'set_aside', 'test_failed'] as const;

export interface Fields {
  name: string;
  url: string;
  subjects: string;
  format: (typeof FORMATS)[number];
  rate: string;
  timeout: string;
  all: boolean;
}

export const BLANK: Fields = { name: '', url: '', subjects: '', format: 'json', rate: '', timeout: '', all: false };

export function creation(fields: Fields): BroadcasterSchemas['NewEndpoint'] {
  const subjects = fields.subjects.split(/[\s,]+/).filter(Boolean);
  return {
    name: fields.name.trim(),
    url: fields.url.trim(),
    format: fields.format,
    ...(subjects.length > 0 && { subjects }),
    ...(fields.rate.trim() && { rate: Number(fields.rate) }),
    ...(fields.timeout.trim() && { timeout: fields.timeout.trim() }),
    ...(fields.all && { start: 'all' as const }),
  };
}

export function createCli(body: BroadcasterSchemas['NewEndpoint']): string[] {
  const words = ['webhook', 'create', body.name, body.url, ...(body.subjects ?? []).flatMap((one) => ['--subject', one])];
  if (body.format !== 'json') words.push('--format', body.format ?? 'json');
  if (body.rate) words.push('--rate', String(body.rate));
  if (body.timeout) words.push('--timeout', body.timeout);
  if (body.start === 'all') words.push('--all');
  return words;
}

/** What of an endpoint can be changed, as the form has it. */
export interface Edits {
  /** Where requests go from now on; empty: as it was, which is never shown. */
  url: string;
  subjects: string;
  format: string;
  rate: string;
  timeout: string;
  concurrency: string;
  retry4xx: string;
}
type Details = BroadcasterSchemas['EndpointDetails'];
type Patch = BroadcasterSchemas['EndpointPatch'];

export function editsOf(own: Details): Edits {
  return { url: '', subjects: own.subjects.join(' '), format: own.format, rate: own.rate ? String(own.rate) : '', timeout: own.timeout, concurrency: String(own.concurrency), retry4xx: own.retry_4xx };
}

function clientErrors(text: string): boolean | number[] | null {
  const word = text.trim();
  if (word === '') return null;
  if (word === 'true' || word === 'false') return word === 'true';
  return word.split(/[\s,]+/).map(Number);
}

/** The body of a change from one form to another: what is emptied goes back to the broadcaster's default. */
export function patch(from: Edits, to: Edits): Patch {
  const body: Patch = {};
  if (to.url.trim()) body.url = to.url.trim();
  if (to.subjects.trim() !== from.subjects.trim()) body.subjects = to.subjects.trim() ? to.subjects.trim().split(/[\s,]+/) : null;
  if (to.format !== from.format) body.format = to.format as Patch['format'];
  if (to.rate.trim() !== from.rate.trim()) body.rate = to.rate.trim() ? Number(to.rate) : null;
  if (to.timeout.trim() !== from.timeout.trim()) body.timeout = to.timeout.trim() || null;
  if (to.concurrency.trim() !== from.concurrency.trim()) body.concurrency = to.concurrency.trim() ? Number(to.concurrency) : null;
  if (to.retry4xx.trim() !== from.retry4xx.trim()) body.retry_4xx = clientErrors(to.retry4xx) as Patch['retry_4xx'];
  return body;
}

export function updateCli(name: string, body: Patch): string[] {
  const words = ['webhook', 'update', name];
  const reset = (what: string, value: unknown) => {
    if (value === null) words.push('--reset', what);
    return value !== null && value !== undefined;
  };
  if (body.url) words.push('--endpoint-url', body.url);
  if (reset('subjects', body.subjects)) for (const one of body.subjects!) words.push('--subject', one);
  if (body.format) words.push('--format', body.format);
  if (reset('timeout', body.timeout)) words.push('--timeout', body.timeout!);
  if (reset('rate', body.rate)) words.push('--rate', String(body.rate));
  if (reset('concurrency', body.concurrency)) words.push('--concurrency', String(body.concurrency));
  if (reset('retry-4xx', body.retry_4xx)) words.push('--retry-4xx', String(body.retry_4xx));
  return words;
}
