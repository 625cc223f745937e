// Items of the intake board. The calls, and what may be done in which state. Pure but for the calls.
import { json } from '../../api/http';

export const STATUSES = ['new', 'triaged', 'approved', 'rejected', 'done'] as const;
export type Status = (typeof STATUSES)[number];
export type Step = 'triage' | 'approve' | 'reject' | 'done';

export interface Item {
  id: string;
  text: string;
  problem: string | null;
  hypothesis: string | null;
  tags: string[];
  owner: string | null;
  impact: number | null;
  status: Status;
  job_id: string | null;
  created_by: string;
  created_at: string;
  updated_at: string | null;
  version: number;
}
export interface ItemPage {
  items: Item[];
  next_cursor: string | null;
}
export interface Counts {
  total: number;
  by_status: Record<Status, number>;
  by_owner: { owner: string | null; count: number }[];
}

const STEPS: Record<Status, Step[]> = { new: ['triage', 'approve', 'reject', 'done'], triaged: ['approve', 'reject', 'done'], approved: ['done'], rejected: ['triage'], done: [] };
export const STEP_LABELS: Record<Step, string> = { triage: 'Triage', approve: 'Approve', reject: 'Reject', done: 'Done' };

/** What may be done with an item, the usual first. */
export function steps(item: Item): Step[] {
  return STEPS[item.status] ?? [];
}

export interface Fields {
  text: string;
  problem: string;
  hypothesis: string;
  tags: string;
  owner: string;
  impact: string | number | null;
}
export const BLANK: Fields = { text: '', problem: '', hypothesis: '', tags: '', owner: '', impact: '' };
export const TEXT_MAX = 140;

export function fieldsOf(item: Item): Fields {
  return { text: item.text, problem: item.problem ?? '', hypothesis: item.hypothesis ?? '', tags: item.tags.join(', '), owner: item.owner ?? '', impact: item.impact === null ? '' : String(item.impact) };
}

/** The body of a creation or a change: what is empty is null. */
export function bodyOf(fields: Fields) {
  const orNull = (text: string) => (text.trim() === '' ? null : text.trim());
  const impact = String(fields.impact ?? '').trim();
  return { text: fields.text.trim(), problem: orNull(fields.problem), hypothesis: orNull(fields.hypothesis), tags: fields.tags.split(/[\s,]+/).filter(Boolean), owner: orNull(fields.owner), impact: impact === '' ? null : Number(impact) };
}

const at = (id: string, step = '') => `/api/intake/${encodeURIComponent(id)}${step && `/${step}`}`;
/** The change is for the version that was seen. */
const seen = (item: Item) => ({ 'if-match': `"${item.version}"` });

export const intake = {
  list: (query: { status?: string; owner?: string; tag?: string; cursor?: string; limit?: number }, signal?: AbortSignal) => json<ItemPage>('GET', '/api/intake', { query, signal }),
  counts: (signal?: AbortSignal) => json<Counts>('GET', '/api/intake/counts', { signal }),
  read: (id: string, signal?: AbortSignal) => json<Item>('GET', at(id), { signal }),
  create: (fields: Fields) => json<Item>('POST', '/api/intake', { body: bodyOf(fields) }),
  change: (item: Item, fields: Fields) => json<Item>('PATCH', at(item.id), { body: bodyOf(fields), headers: seen(item) }),
  step: (item: Item, step: Step) => json<Item>('POST', at(item.id, step), { headers: seen(item) }),
  assign: (item: Item, owner: string | null) => json<Item>('POST', at(item.id, 'assign'), { body: { owner }, headers: seen(item) }),
  remove: (item: Item) => json<void>('DELETE', at(item.id), { headers: seen(item) }),
};
