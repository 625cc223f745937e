import { describe, expect, it } from 'vitest';
import { check, micros, type Entry } from '../../src/pages/audit/chain';

const ZERO = '0'.repeat(64);
// The vector of libs/audit, which never changes.
const first = {
  id: '01a1fd98-49e6-720a-ab05-e03bd3d8231b', at: '1970-01-01T00:00:00.000007Z', surface: 'orchestrator', principal: 'orchestrator', role: 'orchestrator', address: '127.0.0.1', request_id: null,
  operation: 'CancelJob', object_kind: 'audit', object_id: null, outcome: 'ok', calls: 1, detail: { before: 'queued' }, chain: 0, place: 1, previous: ZERO,
  hash: '5881358da51e11e25a94b784d406e77ce0fcd7743ca1ca076ff1a4120467e25c',
} as unknown as Entry;

describe('the chain of the audit log', () => {
  it('has the hashes that libs/audit computes', async () => {
    expect(await check([first], { place: 0, hash: ZERO })).toBeUndefined();
  });

  it('shows every change, gap and cut', async () => {
    for (const change of [{ principal: 'eve' }, { at: '1970-01-01T00:00:00.000008Z' }, { detail: null }, { address: null }, { calls: 2 }, { object_id: 'x' }, { request_id: '' }]) {
      expect(await check([{ ...first, ...change } as Entry], { place: 0, hash: ZERO })).toContain('was changed');
    }
    expect(await check([first], { place: 1, hash: ZERO })).toContain('missing');
    expect(await check([first], { place: 0, hash: 'a'.repeat(64) })).toContain('does not follow');
  });

  it('calls nothing changed because of a number whose text is lost', async () => {
    // What the server wrote as 0.0 is 0 here, where a browser keeps no text of numbers.
    const entry = { ...first, detail: { rate: 0 } } as unknown as Entry;
    const found = await check([entry], { place: 0, hash: ZERO });
    if ('rawJSON' in JSON) expect(found).toContain('was changed');
    else expect(found).toBeUndefined();
  });

  it('reads moments to the microsecond', () => {
    expect([micros('2026-12-01T03:10:20.182193Z'), micros('2026-12-01T03:10:20Z'), micros('2026-12-01T03:10:20.5Z')]).toEqual([1796094620182193, 1796094620000000, 1796094620500000]);
  });
});
