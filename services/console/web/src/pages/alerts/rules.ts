// Rules and silences as Prometheus and Alertmanager have them. Pure but for the requests.
import { json } from '../../api/http';

export interface Rule {
  key: string;
  name: string;
  group: string;
  state: string;
  severity: string;
  query: string;
  holdSeconds: number;
  summary: string;
  runbook: string | undefined;
  health: string;
  problem: string;
}
interface Group {
  name: string;
  file: string;
  rules: { type: string; name: string; query: string; duration?: number; labels?: Record<string, string>; annotations?: Record<string, string>; state?: string; health?: string; lastError?: string }[];
}

const ORDER = ['firing', 'pending', 'inactive'];

export function rulesOf(groups: readonly Group[]): Rule[] {
  const list = groups.flatMap((group) =>
    group.rules
      .filter((one) => one.type === 'alerting')
      .map((one, index) => ({ key: `${group.file}/${group.name}/${index}`, name: one.name, group: group.name, state: one.state ?? 'inactive', severity: one.labels?.severity ?? 'none', query: one.query, holdSeconds: one.duration ?? 0, summary: one.annotations?.summary ?? '', runbook: one.annotations?.runbook_url, health: one.health ?? 'unknown', problem: one.lastError ?? '' })),
  );
  return list.sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name));
}

export async function rules(signal?: AbortSignal): Promise<Rule[]> {
  const answer = await json<{ data: { groups: Group[] } }>('GET', '/api/prometheus/api/v1/rules', { query: { type: 'alert' }, signal });
  return rulesOf(answer.data.groups);
}

export interface Silence {
  id: string;
  createdBy: string;
  comment: string;
  startsAt: string;
  endsAt: string;
  status: { state: string };
  matchers: { name: string; value: string; isRegex: boolean; isEqual?: boolean }[];
}

export async function silences(signal?: AbortSignal): Promise<Silence[]> {
  const list = await json<Silence[]>('GET', '/api/alertmanager/api/v2/silences', { signal });
  return list.filter((one) => one.status.state !== 'expired').sort((a, b) => a.endsAt.localeCompare(b.endsAt));
}

export function matchers(silence: Silence): string {
  return silence.matchers.map(({ name, value, isRegex, isEqual = true }) => `${name}${isEqual ? '=' : '!'}${isRegex ? '~' : isEqual ? '' : '='}"${value}"`).join(' ');
}
