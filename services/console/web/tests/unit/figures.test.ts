// Estimates, alerts' order, and documents as blocks.
import { describe, expect, it } from 'vitest';
import { drain, rising } from '../../src/lib/drain';
import { blocks, spans } from '../../src/lib/markdown';
import { ordered } from '../../src/lib/alerts';

const every = (values: number[], seconds = 5) => values.map((value, index) => ({ at: index * seconds * 1000, value }));

describe('a backlog', () => {
  it('drains, grows, stays, is empty, or is not known yet', () => {
    expect(drain(every([100, 90, 80, 70]))).toEqual({ kind: 'drains', perSecond: 2, leftMs: 35_000 });
    expect(drain(every([10, 20, 30]))).toEqual({ kind: 'grows', perSecond: 2 });
    expect(drain(every([1000, 1001, 1000, 999]))).toEqual({ kind: 'steady' });
    expect(drain(every([5, 0]))).toEqual({ kind: 'empty' });
    expect(drain(every([5, 4]))).toEqual({ kind: 'unknown' });
    expect(drain([])).toEqual({ kind: 'unknown' });
  });
  it('says nothing of a counter that fell', () => expect(rising(every([0, 50, 20, 30], 10))).toEqual([5, null, 1]));
});

describe('a document', () => {
  it('is blocks', () => {
    const parsed = blocks('# A `b`\n\nText that\ngoes on.\n\n- one\n  more\n- two\n\n```sh\na | b\n```\n\n| x | y |\n|---|---|\n| 1 | `2` |\n');
    expect(parsed.map((one) => one.kind)).toEqual(['heading', 'paragraph', 'list', 'code', 'table']);
    expect(parsed[1]).toEqual({ kind: 'paragraph', spans: [{ kind: 'text', text: 'Text that goes on.' }] });
    expect(parsed[2]).toMatchObject({ items: [[{ text: 'one more' }], [{ text: 'two' }]] });
    expect(parsed[3]).toEqual({ kind: 'code', text: 'a | b' });
  });
  it('has spans, and no HTML', () => {
    expect(spans('<b>x</b> **y** [z](a.md)').map((one) => [one.kind, one.text])).toEqual([
      ['text', '<b>x</b> '],
      ['strong', 'y'],
      ['text', ' '],
      ['link', 'z'],
    ]);
  });
  it('never stands still', () => {
    for (const odd of ['|', '- ', '```', '#', '| a', '* x\n|y|', '1. ']) expect(blocks(odd)).toBeDefined();
  });
});

it('puts the worst alerts first', () => {
  const one = (severity: string, since: string, state: 'firing' | 'pending' = 'firing') => ({ name: severity, severity, since, state, summary: '', description: '', runbook: undefined, labels: {} });
  expect(ordered([one('warning', '2'), one('critical', '1', 'pending'), one('critical', '1'), one('warning', '3')]).map((a) => `${a.severity} ${a.since} ${a.state}`)).toEqual([
    'critical 1 firing',
    'warning 3 firing',
    'warning 2 firing',
    'critical 1 pending',
  ]);
});
