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
