// A schedule from the fields of its form. Pure.
import { parseArgs, parseLabels } from '../jobs/form';

export interface Fields {
  name: string;
  cron: string;
  zone: string;
  tool: string;
  queue: string;
  args: string;
  labels: string;
  overlap: string;
  catchUp: string;
  deadline: string;
  paused: boolean;
}

export const OVERLAPS = ['allow', 'skip', 'queue', 'replace'] as const;
export const CATCH_UPS = ['latest', 'all', 'none'] as const;

export const BLANK: Fields = { name: '', cron: '0 * * * *', zone: '', tool: '', queue: '', args: '{}', labels: '', overlap: 'allow', catchUp: 'latest', deadline: '', paused: false };

export interface Creation {
  name: string;
  cron: string;
  time_zone?: string;
  overlap: string;
  catch_up: string;
  deadline?: string;
  paused: boolean;
  job: { tool: string; args: Record<string, unknown>; queue?: string; labels?: Record<string, string> };
}

export function creation(fields: Fields): Creation {
  const labels = parseLabels(fields.labels);
  const body: Creation = {
    name: fields.name.trim(),
    cron: fields.cron.trim(),
    overlap: fields.overlap,
    catch_up: fields.catchUp,
    paused: fields.paused,
    job: { tool: fields.tool.trim(), args: parseArgs(fields.args) },
  };
  if (fields.zone.trim()) body.time_zone = fields.zone.trim();
  if (fields.deadline.trim()) body.deadline = fields.deadline.trim();
  if (fields.queue.trim()) body.job.queue = fields.queue.trim();
  if (Object.keys(labels).length > 0) body.job.labels = labels;
  return body;
}

export function createCli(body: Creation): string[] {
  const words = ['schedule', 'create', body.name, body.job.tool, JSON.stringify(body.job.args), '--cron', body.cron];
  if (body.time_zone) words.push('--tz', body.time_zone);
  if (body.job.queue) words.push('--queue', body.job.queue);
  for (const [name, value] of Object.entries(body.job.labels ?? {})) words.push('--label', `${name}=${value}`);
  if (body.overlap !== 'allow') words.push('--overlap', body.overlap);
  if (body.catch_up !== 'latest') words.push('--catch-up', body.catch_up);
  if (body.deadline) words.push('--deadline', body.deadline);
  if (body.paused) words.push('--paused');
  return words;
}

/** The five fields of a cron expression in words, for the usual ones; undefined for the others. */
export function cronWords(cron: string): string | undefined {
  const [minute, hour, day, month, weekday, more] = cron.trim().split(/\s+/);
  if (!minute || !hour || !day || !month || !weekday || more !== undefined) return undefined;
  const isAny = (...fields: string[]) => fields.every((field) => field === '*');
  const every = /^\*\/(\d+)$/.exec(minute);
  if (isAny(minute, hour, day, month, weekday)) return 'every minute';
  if (every && isAny(hour, day, month, weekday)) return `every ${every[1]} minutes`;
  if (!/^\d+$/.test(minute)) return undefined;
  if (isAny(hour, day, month, weekday)) return minute === '0' ? 'every hour' : `every hour at minute ${minute}`;
  if (!/^\d+$/.test(hour)) return undefined;
  const at = `${hour.padStart(2, '0')}:${minute.padStart(2, '0')}`;
  if (isAny(day, month, weekday)) return `every day at ${at}`;
  const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'];
  if (isAny(day, month) && weekday === '1-5') return `Monday to Friday at ${at}`;
  if (isAny(day, month) && /^[0-7]$/.test(weekday)) return `every ${days[Number(weekday)]} at ${at}`;
  if (isAny(month, weekday) && /^\d+$/.test(day)) return `on day ${day} of the month at ${at}`;
  return undefined;
}
