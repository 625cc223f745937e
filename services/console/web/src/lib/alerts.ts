// Alerts as Alertmanager or Prometheus has them, in one form. Pure but for the request.
import { json } from '../api/http';
import { rank } from './severity';

export interface Alert {
  name: string;
  severity: string;
  state: 'firing' | 'pending' | 'silenced';
  since: string;
  summary: string;
  description: string;
  runbook: string | undefined;
  labels: Record<string, string>;
}

interface FromPrometheus {
  data: { alerts: { labels: Record<string, string>; annotations: Record<string, string>; state: string; activeAt: string }[] };
}
interface FromAlertmanager {
  labels: Record<string, string>;
  annotations: Record<string, string>;
  startsAt: string;
  status: { state: string };
}

function alert(labels: Record<string, string>, annotations: Record<string, string>, since: string, state: Alert['state']): Alert {
  return { name: labels.alertname ?? 'unnamed', severity: labels.severity ?? 'none', state, since, summary: annotations.summary ?? '', description: annotations.description ?? '', runbook: annotations.runbook_url, labels };
}

/** Worst first, then newest. */
export function ordered(alerts: Alert[]): Alert[] {
  return alerts.sort((a, b) => Number(b.state === 'firing') - Number(a.state === 'firing') || rank(a.severity) - rank(b.severity) || b.since.localeCompare(a.since));
}

export async function alerts(from: 'alertmanager' | 'prometheus', signal?: AbortSignal): Promise<Alert[]> {
  if (from === 'alertmanager') {
    const list = await json<FromAlertmanager[]>('GET', '/api/alertmanager/api/v2/alerts', { signal });
    return ordered(list.map((one) => alert(one.labels, one.annotations, one.startsAt, one.status.state === 'suppressed' ? 'silenced' : 'firing')));
  }
  const answer = await json<FromPrometheus>('GET', '/api/prometheus/api/v1/alerts', { signal });
  return ordered(answer.data.alerts.map((one) => alert(one.labels, one.annotations, one.activeAt, one.state === 'firing' ? 'firing' : 'pending')));
}
