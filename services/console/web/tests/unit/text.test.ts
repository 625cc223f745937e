// Words, numbers and times as people read them, and commands as shells read them.
import { describe, expect, it } from 'vitest';
import { bytes, count, percent, plural, rate, shortId } from '../../src/lib/format';
import { score, best } from '../../src/lib/fuzzy';
import { href, match } from '../../src/lib/match';
import { cli, curl, quote } from '../../src/lib/shell';
import { nextSort, parseSort, sorted } from '../../src/lib/table';
import { absolute, duration, parseDuration, parseWhen, relative } from '../../src/lib/time';

describe('time', () => {
  it.each([
    [0, '0 ms'],
    [0.4, '0.4 ms'],
    [380, '380 ms'],
    [1000, '1 s'],
    [4230, '4.2 s'],
    [59_000, '59 s'],
    [185_000, '3 min 5 s'],
    [119_900, '2 min'],
    [3_600_000, '1 h'],
    [7_800_000, '2 h 10 min'],
    [442_800_000, '5 d 3 h'],
  ])('%d ms is %s', (ms, text) => expect(duration(ms)).toBe(text));
  it('says how long ago, and how soon', () => {
    expect(relative(1000, 1500)).toBe('now');
    expect(relative(0, 12_000)).toBe('12 s ago');
    expect(relative(180_000, 0)).toBe('in 3 min');
    expect(relative(0, 3 * 86_400_000)).toBe('3 d ago');
  });
  it('is written in a zone', () => {
    expect(absolute(Date.UTC(2026, 11, 1, 2, 3, 4), 'UTC')).toBe('2026-12-01 02:03:04');
    expect(absolute(Date.UTC(2026, 11, 1, 23, 3, 4), 'Europe/Vienna')).toBe('2026-12-02 00:03:04');
  });
  it('is read as people type it', () => {
    expect(parseDuration('1d12h')).toBe(129_600_000);
    expect(parseDuration('12')).toBeUndefined();
    expect(parseWhen('2h', 10_000_000)).toBe(2_800_000);
    expect(parseWhen('2026-12-01T00:00:00Z', 0)).toBe(Date.UTC(2026, 11, 1));
    expect(parseWhen('yesterday', 0)).toBeUndefined();
  });
});

it('writes figures', () => {
  expect([count(12_345), count(1_234_567), count(123_456)]).toEqual(['12,345', '1.2 M', '123 k']);
  expect([bytes(940), bytes(4300), bytes(5_242_880)]).toEqual(['940 B', '4.2 KiB', '5.0 MiB']);
  expect([rate(0), rate(0.05), rate(1.5), rate(1240)]).toEqual(['0/s', '3/min', '1.5/s', '1,240/s']);
  expect([percent(0.5), percent(0.123), percent(-0.2, 0)]).toEqual(['50 %', '12.3 %', '-20 %']);
  expect([plural(1, 'job'), plural(1200, 'job')]).toEqual(['1 job', '1,200 jobs']);
  expect(shortId('0190c3e2-7d5a-7000-8000-00000000abcd')).toBe('0000abcd');
});

describe('commands', () => {
  it('are quoted for a shell', () => {
    expect(quote('plain-1.2')).toBe('plain-1.2');
    expect(quote('')).toBe("''");
    expect(quote("it's $HOME")).toBe("'it'\\''s $HOME'");
  });
  it('are whole lines', () => {
    expect(cli('job', 'get', undefined, 'a b')).toBe("agentforge job get 'a b'");
    expect(curl({ method: 'POST', path: '/v1/jobs', body: { tool: 'a' } })).toBe(
      `curl -sS -X POST -H "authorization: Bearer $AGENTFORGE_TOKEN" -H 'content-type: application/json' -d '{"tool":"a"}' "$ORCHESTRATOR"/v1/jobs`,
    );
  });
});

describe('paths', () => {
  it('fit patterns part by part', () => {
    expect(match('/jobs/:id', '/jobs/a%20b')).toEqual({ id: 'a b' });
    expect(match('/jobs/:id', '/jobs')).toBeUndefined();
    expect(match('/jobs/:id', '/jobs/%E0%A4%A')).toBeUndefined();
    expect(match('/', '/')).toEqual({});
  });
  it('are built with what is there', () => {
    expect(href('/jobs', { state: 'failed,dead', tool: '', label: ['a=b', 'c=d'] })).toBe('/jobs?state=failed,dead&label=a%3Db&label=c%3Dd');
  });
});

it('orders rows, those without a value last', () => {
  const rows = [{ n: 2 }, { n: null }, { n: 10 }];
  expect(sorted(rows, (row) => row.n, false).map((row) => row.n)).toEqual([2, 10, null]);
  expect(sorted(rows, (row) => row.n, true).map((row) => row.n)).toEqual([10, 2, null]);
  expect([nextSort(undefined, 'a'), nextSort(parseSort('a'), 'a'), nextSort(parseSort('-a'), 'a')]).toEqual(['a', '-a', null]);
});

it('finds lines by their letters', () => {
  expect(score('zz', 'Jobs')).toBe(0);
  expect(best('dl', ['Overview', 'Dead letters', 'Schedules'], (one) => one, 5)[0]).toBe('Dead letters');
  expect(best('jobs', ['Cancel jobs', 'Jobs'], (one) => one, 5)[0]).toBe('Jobs');
});
