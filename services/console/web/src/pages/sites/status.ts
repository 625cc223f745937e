// The state of a syncdaemon, and the words for it. Pure but for the request.
import { json } from '../../api/http';

interface Files {
  files: number;
  names: string[];
  reason: string;
}
export interface SiteStatus {
  site: string;
  queue_dir: string;
  ledger_dir: string;
  subject: string;
  domain: string | null;
  link_up: boolean;
  left_alone: { files: number; oldest_age_s: number; quarantined: number };
  held: string | null;
  large_held: string | null;
  queue_depth: number;
  counted: boolean;
  stuck: Files;
  open: Files;
  in_flight: number;
  oldest_file_age_s: number;
  bandwidth_bps: number;
  replayed: number;
  duplicates: number;
  recovered: number;
  quarantined: number;
  retried: number;
  bytes: number;
}

export const siteStatus = (signal?: AbortSignal) => json<SiteStatus>('GET', '/api/syncdaemon/status', { signal });

export type Health = { state: 'healthy' | 'at_risk' | 'breached'; text: string };

/** One sentence that says how a site is, the worst first. */
export function health(status: SiteStatus): Health {
  const quarantined = status.left_alone.quarantined;
  if (!status.link_up) return { state: 'breached', text: `The link to the hub is down. ${status.queue_depth > 0 ? 'Files wait here, in order, and nothing is lost.' : 'Nothing waits.'}` };
  if (status.held) return { state: 'breached', text: `Sending pauses (${status.held.replaceAll('_', ' ')}); the files stay.` };
  if (status.stuck.files > 0) return { state: 'at_risk', text: `${status.stuck.files} delivered files cannot be removed: ${status.stuck.reason}` };
  if (quarantined > 0) return { state: 'at_risk', text: `${quarantined} files are in quarantine: they can never be sent as they are.` };
  if (status.large_held) return { state: 'at_risk', text: `Large files wait (${status.large_held.replaceAll('_', ' ')}).` };
  return { state: 'healthy', text: status.queue_depth > 0 ? 'Files are being delivered.' : 'All files are at the hub.' };
}

export interface LinkChange {
  at: number;
  up: boolean;
}
export const CHANGES_MAX = 50;

/** The link as this page saw it: only changes are kept. */
export function watched(changes: readonly LinkChange[], up: boolean, at: number): readonly LinkChange[] {
  return changes.at(-1)?.up === up ? changes : [...changes.slice(1 - CHANGES_MAX), { at, up }];
}

/** Streams of evidence in the exporter's page of metrics: messages and bytes by stream. */
export function streamsOf(page: string): { stream: string; messages?: number; bytes?: number }[] {
  const found = new Map<string, { stream: string; messages?: number; bytes?: number }>();
  for (const line of page.split('\n')) {
    const [, metric, labels, value] = /^(\w+)\{([^}]*)\}\s+([\d.eE+-]+)/.exec(line) ?? [];
    const stream = /(?:^|,)\s*(?:stream|stream_name)="([^"]+)"/.exec(labels ?? '')?.[1];
    if (!stream || !/evidence/i.test(stream)) continue;
    const kind = /stream.*messages$/.test(metric!) ? 'messages' : /stream.*bytes$/.test(metric!) && !/limit|max/.test(metric!) ? 'bytes' : undefined;
    if (!kind) continue;
    const own = found.get(stream) ?? { stream };
    own[kind] = Math.max(own[kind] ?? 0, Number(value));
    found.set(stream, own);
  }
  return [...found.values()].sort((a, b) => a.stream.localeCompare(b.stream));
}
