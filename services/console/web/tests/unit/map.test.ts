import { describe, expect, it } from 'vitest';
import { MARKER_SEVERITIES, rank, SEVERITIES } from '../../src/lib/severity';
import { look } from '../../src/lib/states';
import { boxOf, degrees, evidencePath, fits, graticule, scale, thingOf, TRACK_MAX, worstFirst } from '../../src/pages/map/things';

const feature = (more: object = {}, at: unknown = [13.4, 52.5]) => ({ type: 'Feature', geometry: { type: 'Point', coordinates: at }, properties: { id: 'truck-7', kind: 'marker', site: 'pier', title: 'Truck 7', description: null, severity: 'high', observed_at: '2026-01-01T00:00:00Z', evidence_link: null, ...more } });

describe('things of the live picture', () => {
  it('are read from Features, and everything else is no thing', () => {
    expect(thingOf(feature())).toMatchObject({ key: 'marker/pier/truck-7', title: 'Truck 7', severity: 'high', description: undefined, evidence: undefined });
    for (const wrong of [undefined, {}, feature({ id: 7 }), feature({}, ['a', 1]), feature({}, [Infinity, 1]), { ...feature(), geometry: null }, { ...feature(), geometry: { type: 'LineString', coordinates: [[1, 2]] } }]) expect(thingOf(wrong)).toBeUndefined();
  });

  it('keep a bounded track, without repeats', () => {
    let thing = thingOf(feature());
    thing = thingOf(feature(), thing);
    expect(thing!.track).toEqual([[13.4, 52.5]]);
    for (let n = 1; n < 2 * TRACK_MAX; n += 1) thing = thingOf(feature({}, [n / 10, 1]), thing);
    expect(thing!.track).toHaveLength(TRACK_MAX);
    expect(thing!.track.at(-1)).toEqual([(2 * TRACK_MAX - 1) / 10, 1]);
  });

  it('link only to evidence, through the console', () => {
    expect(evidencePath('/v1/evidence/pier%2Fabc.17.sig-_')).toBe('/api/tactical/v1/evidence/pier%2Fabc.17.sig-_');
    expect(evidencePath('https://tactical.example/v1/evidence/a?e=1')).toBe('/api/tactical/v1/evidence/a?e=1');
    for (const wrong of [null, 7, '', 'javascript:alert(1)', '/v1/evidence/../markers', '/v1/evidence/a/b', '//evil.example/v1/evidence/a', '/v1/markers/x', 'https://x/v1/evidence/a"onload=']) expect(evidencePath(wrong)).toBeUndefined();
  });

  it('are filtered by all that is asked, and the worst is first', () => {
    const thing = thingOf(feature())!;
    const none = { severities: [], kind: '', site: '', text: '' };
    expect(fits(thing, none)).toBe(true);
    expect(fits(thing, { ...none, text: 'TRUCK' })).toBe(true);
    expect(fits(thing, { ...none, severities: ['high', 'low'], kind: 'marker', site: 'pier' })).toBe(true);
    for (const other of [{ severities: ['low'] }, { kind: 'zone' }, { site: 'x' }, { text: 'boat' }]) expect(fits(thing, { ...none, ...other })).toBe(false);
    const list = ['low', 'unheard-of', 'critical', 'medium'].map((severity) => thingOf(feature({ severity }))!).sort(worstFirst);
    expect(list.map((one) => one.severity)).toEqual(['critical', 'medium', 'low', 'unheard-of']);
  });

  it('have a box, a place in words, a grid of a few lines and a round scale', () => {
    const zone = thingOf({ ...feature({ kind: 'zone' }), geometry: { type: 'Polygon', coordinates: [[[0, 0], [2, 0], [2, -1], [0, 0]]] } })!;
    expect(boxOf([zone, thingOf(feature())!])).toEqual([0, -1, 13.4, 52.5]);
    expect(boxOf([])).toBeUndefined();
    expect(degrees([-13.4, 52.51634])).toBe('52.5163° N, 13.4000° W');
    for (const box of [[-180, -90, 180, 90], [13.3, 52.5, 13.4, 52.6], [-900, -85, 900, 85]] as const) {
      const lines = graticule([...box]);
      expect(lines.length).toBeGreaterThan(4);
      expect(lines.length).toBeLessThanOrEqual(120);
    }
    expect([scale(110), scale(2600), scale(7)]).toEqual([{ metres: 100, label: '100 m' }, { metres: 2000, label: '2 km' }, { metres: 5, label: '5 m' }]);
  });
});

describe('words of severity', () => {
  it('have one order, and a word that is not known comes last', () => {
    expect([...MARKER_SEVERITIES].sort((a, b) => rank(a) - rank(b))).toEqual(MARKER_SEVERITIES);
    expect(rank('critical')).toBe(0);
    expect(rank('strange')).toBeGreaterThan(rank('none'));
  });

  it('look as bad as they are', () => {
    const worse = { bad: 0, warn: 1, run: 2, idle: 2 } as Record<string, number>;
    const roles = SEVERITIES.filter((one) => one !== 'page' && one !== 'ticket').map((one) => worse[look(one).role]);
    expect(roles).toEqual([...roles].sort());
    expect(look('warning').role).toBe('warn');
  });
});
