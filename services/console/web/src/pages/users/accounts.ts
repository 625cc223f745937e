// Users and sessions of the console.
import { json } from '../../api/http';

export const ROLES = ['viewer', 'submitter', 'operator', 'admin'] as const;
export const ROLE_WORDS: Record<string, string> = { viewer: 'sees everything', submitter: 'submits, cancels and retries jobs', operator: 'pauses, redrives, approves', admin: 'everything, and users' };

export interface User {
  name: string;
  role: string;
  has_password: boolean;
  disabled: boolean;
  created_at: string;
  last_login_at?: string | null;
}
export interface UserPage {
  users: User[];
  next_cursor: string | null;
}
export interface Link {
  url: string;
  expires_at: string;
}
export interface OwnSession {
  id: string;
  user: string;
  kind: string;
  created_at: string;
  renewed_at: string;
  expires_at: string;
  address: string;
  agent: string;
  current: boolean;
}

const of = (name: string, more = '') => `/api/users/${encodeURIComponent(name)}${more}`;

export const accounts = {
  users: (cursor: string, signal?: AbortSignal) => json<UserPage>('GET', '/api/users', { query: { cursor, limit: 100 }, signal }),
  add: (name: string, role: string) => json<User>('POST', '/api/users', { body: { name, role } }),
  change: (name: string, change: { role?: string; disabled?: boolean }) => json<User>('PATCH', of(name), { body: change }),
  remove: (name: string) => json<void>('DELETE', of(name)),
  link: (name: string) => json<Link>('POST', of(name, '/link')),
  endSessions: (name: string) => json<{ revoked: number }>('DELETE', of(name, '/sessions')),
  sessions: (signal?: AbortSignal) => json<{ sessions: OwnSession[] }>('GET', '/auth/sessions', { signal }),
  endSession: (id: string) => json<void>('DELETE', `/auth/sessions/${encodeURIComponent(id)}`),
  password: (current: string, fresh: string) => json<void>('POST', '/auth/password', { body: { current: current || null, new: fresh } }),
};

/** The browser and the system that a User-Agent names, as far as people tell them apart. */
export function agentWords(agent: string): string {
  const browser = /(Firefox|Edg|OPR|Chrome|Chromium|Safari)\/[\d.]+/.exec(agent)?.[1];
  const system = /(Windows|Android|iPhone|iPad|Mac OS X|CrOS|Linux)/.exec(agent)?.[1];
  const name = { Edg: 'Edge', OPR: 'Opera' }[browser ?? ''] ?? browser;
  return [name, system?.replace('Mac OS X', 'macOS')].filter(Boolean).join(' on ') || agent.slice(0, 40) || 'unknown';
}
