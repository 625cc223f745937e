// The chain of the audit log, checked in the browser: each hash covers the entry, its place and the hash before it.
import type { Schemas } from '../../api/client';
import { keepsText } from '../../api/http';

export type Entry = Schemas['AuditEntry'];
const FORM = 'agentforge.audit.1';

/** Microseconds since 1970 of RFC 3339 with up to nine digits, exactly. */
export function micros(at: string): number {
  const [, whole, digits = ''] = /^(.*?)(?:\.(\d+))?(?:Z|[+-]00:00)$/.exec(at) ?? [];
  return Date.parse(`${whole}Z`) * 1000 + Number(digits.padEnd(6, '0').slice(0, 6));
}

/** The canonical form, as libs/audit has it, of an entry that was read exactly. Undefined where the text cannot be known. */
export function canonical(entry: Entry): string | undefined {
  const detail = entry.detail == null ? null : JSON.stringify(entry.detail);
  if (detail !== null && isAmbiguous(entry.detail)) return undefined;
  return JSON.stringify([
    FORM,
    entry.chain,
    entry.place,
    entry.previous,
    entry.id,
    micros(entry.at),
    [entry.surface, entry.principal, entry.role, entry.address ?? null, entry.request_id ?? null],
    [entry.operation, entry.object_kind, entry.object_id ?? null, entry.outcome, entry.calls, detail],
  ]);
}

/** Whether a value has numbers whose text is lost, or names that an object puts in another order. */
function isAmbiguous(value: unknown): boolean {
  if (typeof value === 'number') return !keepsText;
  if (value === null || typeof value !== 'object') return false;
  return Object.entries(value).some(([name, one]) => (!Array.isArray(value) && /^\d+$/.test(name)) || isAmbiguous(one));
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export interface Head {
  place: number;
  hash: string;
}

/** What is wrong with entries that follow a head; undefined when nothing is. */
export async function check(entries: readonly Entry[], head: Head): Promise<string | undefined> {
  let { place, hash } = head;
  for (const entry of entries) {
    if (entry.place !== place + 1) return `place ${place + 1} is missing`;
    if (entry.previous !== hash) return `place ${entry.place} does not follow the entry before it`;
    const form = canonical(entry);
    if (form !== undefined && (await sha256(form)) !== entry.hash) return `place ${entry.place} was changed: its hash is another`;
    ({ place, hash } = entry);
  }
  return undefined;
}
