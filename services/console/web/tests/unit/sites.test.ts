// A site's link over a day, an endpoint's change, a replay in parts.
import { describe, expect, it } from 'vitest';
import { judge, percent, segments, type SiteLink } from '../../src/pages/sites/links';
import { editsOf, patch, updateCli, type Edits } from '../../src/pages/webhooks/form';
import { replayAll } from '../../src/pages/webhooks/replay';

const iso = (second: number) => new Date(second * 1000).toISOString();

describe('a link over time', () => {
  const link = (known: number, spans: [number, number | null][]): SiteLink => ({
    site: 'pier-7',
    own: false,
    up: spans.at(-1)?.[1] === null,
    seen_at: null,
    known_since: iso(known),
    spans: spans.map(([from, to]) => ({ from: iso(from), to: to === null ? null : iso(to) })),
  });
  const kinds = (one: SiteLink) => segments(one, 1_000_000, 2_000_000).map((part) => [part.kind, part.from / 1000, part.to / 1000]);
  it('is unknown, up and down without gaps', () => {
    expect(kinds(link(1200, [[1200, 1500], [1700, null]]))).toEqual([['unknown', 1000, 1200], ['up', 1200, 1500], ['down', 1500, 1700], ['up', 1700, 2000]]);
  });
  it('is cut at the edges of the strip', () => {
    expect(kinds(link(100, [[100, 1100], [1900, 1950]]))).toEqual([['up', 1000, 1100], ['down', 1100, 1900], ['up', 1900, 1950], ['down', 1950, 2000]]);
    expect(kinds(link(2000, []))).toEqual([['unknown', 1000, 2000]]);
  });
  it('is judged on what is known, and an outage is never rounded away', () => {
    const known = judge(segments(link(1200, [[1200, 1500], [1700, null]]), 1_000_000, 2_000_000));
    expect([known.share, known.outages.length, known.longestMs, known.knownMs]).toEqual([0.75, 1, 200_000, 800_000]);
    expect(judge([]).share).toBeUndefined();
    expect([percent(1), percent(0.999999), percent(0.5)]).toEqual(['100 %', '99.99 %', '50.00 %']);
  });
});

describe('an endpoint is changed', () => {
  const own = { name: 'b', subjects: ['a.>', 'b.*'], format: 'json', rate: 5, timeout: '10s', concurrency: 8, retry_4xx: 'false' } as Parameters<typeof editsOf>[0];
  const edited = (more: Partial<Edits>) => patch(editsOf(own), { ...editsOf(own), ...more });
  it('by what is named only', () => {
    expect(edited({})).toEqual({});
    expect(edited({ url: ' https://x ', rate: '7.5', retry4xx: '409, 423' })).toEqual({ url: 'https://x', rate: 7.5, retry_4xx: [409, 423] });
  });
  it('back to the defaults where a field is emptied, and back again', () => {
    const fields = { ...editsOf(own), subjects: '', rate: '', timeout: ' ', concurrency: '', retry4xx: '' };
    expect(patch(editsOf(own), fields)).toEqual({ subjects: null, rate: null, timeout: null, concurrency: null, retry_4xx: null });
    expect(patch(fields, editsOf(own))).toEqual({ subjects: ['a.>', 'b.*'], rate: 5, timeout: '10s', concurrency: 8, retry_4xx: false });
  });
  it('and its command is the same', () => {
    expect(updateCli('b', edited({ rate: '', timeout: '3s', retry4xx: 'true', subjects: 'c' }))).toEqual(['webhook', 'update', 'b', '--subject', 'c', '--timeout', '3s', '--reset', 'rate', '--retry-4xx', 'true']);
  });
});

describe('a replay', () => {
  it('is one run of short requests', async () => {
    const asked: unknown[] = [];
    const sum = await replayAll(
      async (body) => {
        asked.push([body.limit, body.after ?? null, body.run ?? null]);
        const isLast = asked.length === 3;
        return { matched: 10, replayed: 9, scanned: 10, run: 'r', refused: [{ reason: `too large ${asked.length}` }] as never, next_after: isLast ? null : String(asked.length) };
      },
      { endpoint: 'b', since: '', until: '', rate: 2, dry_run: false },
    );
    expect(asked).toEqual([[10, null, null], [10, '1', 'r'], [10, '2', 'r']]);
    expect(sum).toEqual({ matched: 30, replayed: 27, refused: 3, reason: 'too large 1' });
  });
});
