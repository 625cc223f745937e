// Times and durations as people read them. Pure: the zone and the present are given.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A span of milliseconds in at most two units: "380 ms", "4.2 s", "3 min 5 s", "2 h 10 min", "5 d 3 h". */
export function duration(ms: number): string {
  const span = Math.abs(ms);
  if (span < 1) return `${span === 0 ? '0' : span.toFixed(1)} ms`;
  if (span < SECOND) return `${Math.round(span)} ms`;
  if (span < 10 * SECOND) return `${trim((span / SECOND).toFixed(1))} s`;
  if (span < MINUTE) return `${Math.round(span / SECOND)} s`;
  if (span < HOUR) return two(span, MINUTE, 'min', SECOND, 's');
  if (span < DAY) return two(span, HOUR, 'h', MINUTE, 'min');
  return two(span, DAY, 'd', HOUR, 'h');
}

function trim(text: string): string {
  return text.replace(/\.0$/, '');
}

function two(span: number, unit: number, name: string, small: number, smallName: string): string {
  let whole = Math.floor(span / unit);
  let rest = Math.round((span - whole * unit) / small);
  if (rest * small >= unit) {
    whole += 1;
    rest = 0;
  }
  return rest === 0 ? `${whole} ${name}` : `${whole} ${name} ${rest} ${smallName}`;
}

/** "12 s ago", "in 3 min", "now": one unit is enough for a column. */
export function relative(at: number, now: number): string {
  const ahead = at - now;
  const span = Math.abs(ahead);
  if (span < SECOND) return 'now';
  const text =
    span < MINUTE
      ? `${Math.floor(span / SECOND)} s`
      : span < HOUR
        ? `${Math.floor(span / MINUTE)} min`
        : span < 2 * DAY
          ? `${Math.floor(span / HOUR)} h`
          : `${Math.floor(span / DAY)} d`;
  return ahead > 0 ? `in ${text}` : `${text} ago`;
}

/** Formats are dear to make and cheap to use. */
const FORMATS = new Map<string, Intl.DateTimeFormat>();

function format(zone: string | undefined): Intl.DateTimeFormat {
  const key = zone ?? '';
  let made = FORMATS.get(key);
  if (!made) {
    made = new Intl.DateTimeFormat('en-CA', {
      timeZone: zone,
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
      hour: '2-digit',
      minute: '2-digit',
      second: '2-digit',
      hourCycle: 'h23',
    });
    FORMATS.set(key, made);
  }
  return made;
}

/** "2026-12-01 02:10:44" in a zone; undefined is the reader's own. Sorts as text and is read the same everywhere. */
export function absolute(at: number, zone?: string): string {
  const parts = format(zone).formatToParts(at);
  const get = (type: string) => parts.find((one) => one.type === type)?.value ?? '';
  return `${get('year')}-${get('month')}-${get('day')} ${get('hour')}:${get('minute')}:${get('second')}`;
}

/** The weekday in a zone, short: "Tue". */
export function weekday(at: number, zone?: string): string {
  return new Intl.DateTimeFormat('en-GB', { timeZone: zone, weekday: 'short' }).format(at);
}

const UNITS: Record<string, number> = { ms: 1, s: SECOND, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY };

/** "2h", "30m", "1d12h" in milliseconds; undefined when it is not a duration. */
export function parseDuration(text: string): number | undefined {
  const trimmed = text.trim();
  if (!/^(\d+(\.\d+)?(ms|[smhdw]))+$/.test(trimmed)) return undefined;
  let total = 0;
  for (const [, count, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|[smhdw])/g)) total += Number(count) * UNITS[unit!]!;
  return total;
}

/** A moment as people type it: "2h" (ago), a date, a date with a time, or RFC 3339. */
export function parseWhen(text: string, now: number): number | undefined {
  const ago = parseDuration(text);
  if (ago !== undefined) return now - ago;
  const at = Date.parse(text.trim().replace(' ', 'T'));
  return Number.isNaN(at) ? undefined : at;
}

export function millis(iso: string | null | undefined): number | undefined {
  if (!iso) return undefined;
  const at = Date.parse(iso);
  return Number.isNaN(at) ? undefined : at;
}
