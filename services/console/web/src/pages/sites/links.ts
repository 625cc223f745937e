// A site's link over the last day: what a strip shows of it, and the words for it. Pure.
import type { Schemas } from '../../api/client';

export type SiteLink = Schemas['Site'];
export interface Segment {
  kind: 'up' | 'down' | 'unknown';
  from: number;
  to: number;
}

/** The time from `begin` to `now`, without gaps. */
export function segments(link: SiteLink, begin: number, now: number): Segment[] {
  const found: Segment[] = [];
  let place = begin;
  const add = (kind: Segment['kind'], to: number) => {
    const end = Math.min(to, now);
    if (end > place) {
      found.push({ kind, from: place, to: end });
      place = end;
    }
  };
  add('unknown', Date.parse(link.known_since));
  for (const span of link.spans) {
    add('down', Date.parse(span.from));
    add('up', span.to ? Date.parse(span.to) : now);
  }
  add('down', now);
  return found;
}

export interface Judgement {
  /** Of the time that is known; undefined when none is. */
  share: number | undefined;
  outages: Segment[];
  longestMs: number;
  knownMs: number;
}

export function judge(parts: readonly Segment[]): Judgement {
  const sum = (kinds: Segment['kind'][]) => parts.filter((one) => kinds.includes(one.kind)).reduce((all, one) => all + one.to - one.from, 0);
  const outages = parts.filter((one) => one.kind === 'down');
  const knownMs = sum(['up', 'down']);
  return { share: knownMs > 0 ? sum(['up']) / knownMs : undefined, outages, longestMs: Math.max(0, ...outages.map((one) => one.to - one.from)), knownMs };
}

/** 99.95 %, and never 100 % when there was an outage. */
export function percent(share: number): string {
  return `${share === 1 ? '100' : Math.min(99.99, Math.floor(share * 10_000) / 100).toFixed(2)} %`;
}
